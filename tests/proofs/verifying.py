"""Kernels to PTX, PTX and a launch to a verdict; both are kept by what went in."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from .ptx import rewrite
from .recording import ROOT, Launch

ARCHITECTURE = "sm_100a"  # what the verifier knows best
CACHE = Path(os.environ.get("CHARLM_FAST_PROOFS", ROOT / ".proofs"))
SECONDS = 300
# The grid's barrier is a loop over an atomic counter, which the verifier cannot follow: the blocks
# of a cooperative grid are taken for one cluster, whose barrier orders the same.
GRID_BARRIER = ("cooperative_groups::this_grid()", "cooperative_groups::this_cluster()")
DTYPES = {
    "float32": ("kFloat", "float"),
    "float64": ("kDouble", "double"),
    "bfloat16": ("kBFloat16", "__nv_bfloat16"),
    "float16": ("kHalf", "__half"),
}


def verifier() -> str | None:
    """Version of the verifier, or None where it is not installed."""
    if importlib.util.find_spec("sentryward") is None:
        return None
    return importlib.metadata.version("sentryward")


def find_nvcc() -> str | None:
    """An nvcc with its headers: a toolkit's, or that of the package nvidia-cuda-nvcc."""
    homes = [os.environ.get(name, "") for name in ("CUDA_HOME", "CUDA_PATH")]
    candidates = [f"{home}/bin/nvcc" for home in homes if home]
    candidates += [shutil.which("nvcc") or "", "/usr/local/cuda/bin/nvcc"]
    candidates += [str(Path(p) / "nvidia" / "cu13" / "bin" / "nvcc") for p in sys.path]
    return next((c for c in candidates if c and os.access(c, os.X_OK)), None)


@functools.cache
def _version(nvcc: str) -> str:
    return subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _keep(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_text(text)
    os.replace(beside, path)


@dataclass(frozen=True)
class Change:
    """A mutant: in `source`, a file in csrc, `old` becomes `new`."""

    source: str
    old: str
    new: str


def _sources(dtype: str, changes: tuple[Change, ...]) -> dict[str, str]:
    """csrc's headers and kernels with one dtype to compile and the grid's barrier a cluster's."""
    texts = {}
    for folder in ("common", "cuda"):
        for path in (ROOT / "csrc" / folder).iterdir():
            if path.suffix in (".h", ".cuh", ".cu"):
                texts[f"{folder}/{path.name}"] = path.read_text()
    for change in changes:
        found = texts[change.source].count(change.old)
        if found != 1:
            raise ValueError(f"{change.source}: {change.old!r} is there {found} times, expected 1")
        texts[change.source] = texts[change.source].replace(change.old, change.new)
    name, kind = DTYPES[dtype]
    types = texts["cuda/types.cuh"]
    begin = types.index("  switch (dtype) {")
    end = types.index("  return cudaErrorInvalidValue;", begin)
    # On one line, so that the others keep their numbers.
    only = f"  if (dtype == DType::{name}) return f(Type<{kind}>());"
    texts["cuda/types.cuh"] = (
        types[:begin] + only + "\n" * types[begin:end].count("\n") + types[end:]
    )
    together = texts["cuda/together.cuh"]
    assert together.count(GRID_BARRIER[0]) == 3  # whole, and its two halves
    texts["cuda/together.cuh"] = together.replace(*GRID_BARRIER)
    return texts


def ptx_place(nvcc: str, source: str, dtype: str, changes: tuple[Change, ...] = ()) -> Path:
    """Where the PTX of these sources is kept."""
    texts = json.dumps(_sources(dtype, changes), sort_keys=True)
    return CACHE / f"{_hash(_version(nvcc), ARCHITECTURE, source, texts)}.ptx"


def compile_ptx(nvcc: str, source: str, dtype: str, changes: tuple[Change, ...] = ()) -> str:
    """PTX of csrc/cuda/`source` for one dtype."""
    texts, kept = _sources(dtype, changes), ptx_place(nvcc, source, dtype, changes)
    if kept.exists():
        return kept.read_text()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, text in texts.items():
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text(text)
        command = [nvcc, "-std=c++17", "-O3", f"-arch={ARCHITECTURE}", "-ptx", "-lineinfo"]
        # A name of its own: nvcc spells it into the kernels' names.
        command += [f"-I{root}", str(root / "cuda" / source), "-o", str(root / "out.ptx")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=root)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        text = (root / "out.ptx").read_text().replace(folder, "csrc")
    # Lines of no meaning to a proof that differ between folders.
    _keep(kept, re.sub(r"_GLOBAL__N__[0-9a-f]{8}_", "_GLOBAL__N__00000000_", text))
    return kept.read_text()


# What refuses a kernel, as a result or in its details: it may race, block, or use a barrier that is
# not there. Whatever else stops the verifier is no refusal.
REFUSALS = (
    "potential_race",
    "not_wellsynced",
    "invalid_lifecycle",
    "incomplete_cluster_collective",
)


@dataclass(frozen=True)
class Verdict:
    """What the verifier said."""

    result: str  # race_free, or what it found, or why it stopped
    seconds: float
    details: tuple[str, ...]  # of findings: what, and lines of the source
    kept: bool = False  # from the cache

    @property
    def refused(self) -> bool:
        codes = (detail.split(":")[0] for detail in self.details)
        return any(code in REFUSALS for code in (self.result, *codes))


def _place(access: object) -> str:
    location = access.get("location", {}) if isinstance(access, dict) else {}
    return f"{Path(str(location.get('file', '?'))).name}:{location.get('line', '?')}"


def _details(report: dict) -> list[str]:
    found = [f"{d.get('code')}: {d.get('message', '')}" for d in report.get("diagnostics", [])]
    for race in report.get("races", []):
        places = [_place(race.get(side)) for side in ("first", "second")]
        found.append(f"race: {' and '.join(places)}")
    return list(dict.fromkeys(found))[:20]


def paired(text: str) -> str:
    """The verifier knows asynchronous stores in clusters of several blocks only: two that are each a
    cluster of their own are taken for one, of which each sends to itself."""
    own = "\tmov.u32 \t%own_rank, %cluster_ctarank;"
    text = re.sub(
        r"^\s*mapa\.shared::cluster\.u32 (%\w+), (%\w+), %?\w+;",
        rf"{own}\n\tmapa.shared::cluster.u32 \1, \2, %own_rank;",
        text,
        flags=re.M,
    )
    return text.replace("\t.reg .pred %chosen;", "\t.reg .pred %chosen;\n\t.reg .u32 %own_rank;", 1)


def verify(
    text: str,
    launch: Launch,
    ids: int = 0,
    *,
    representative: bool = False,
    seconds: int = SECONDS,
    kept_only: bool = False,
) -> Verdict:
    """The verdict of the kernel in the module `text` for one launch, whose ids are all `ids`.

    With `kept_only`, a verdict that is not in the cache is "not proved yet".

    With `representative`, the verifier takes the branch that falls through where it depends on
    data: then the proof is of those branches.
    """
    cluster = launch.grid if launch.cooperative else (launch.cluster, 1, 1)
    rewritten = rewrite(text, launch, ids)
    if launch.cluster == 1 and "st.async" in rewritten:
        cluster, rewritten = (2, 1, 1), paired(rewritten)
    given = {
        "schema": "spverify.kernel-input/v1",
        "entry": "kernel",
        "launch": {
            "grid_dim": launch.grid,
            "block_dim": launch.block,
            "cluster_dim": cluster,
            "dynamic_shared_bytes": launch.shared,
        },
        "arguments": [],
    }
    if representative:
        given["assumptions"] = {"representative_branches": True}
    configuration = json.dumps(given)
    # Lines of the source matter to races that are found, not to a proof or a deadlock.
    unlined = re.sub(r"^\s*\.(?:loc|file)\b.*\n", "", rewritten, flags=re.M)
    unlined = unlined.split("\n\t.section")[0]
    version = str(verifier())
    unplaced, placed = (
        CACHE / f"{_hash(t, configuration, version)}.json" for t in (unlined, rewritten)
    )
    for kept in (unplaced, placed):
        if kept.exists():
            found = json.loads(kept.read_text())
            return Verdict(found["result"], found["seconds"], tuple(found["details"]), True)
    if kept_only:
        return Verdict("not proved yet", 0, ())
    from sentryward.frontend.ptx_native import run_ptx

    with tempfile.TemporaryDirectory() as folder:
        module, config = Path(folder, "kernel.ptx"), Path(folder, "input.json")
        module.write_text(rewritten)
        config.write_text(configuration)
        begin = time.monotonic()
        for _ in range(2):  # the tool itself may fail, rarely: that is no verdict
            report = run_ptx(module, config, sync_threads=2, pipeline_timeout_seconds=seconds)
            if report["result"] != "tool_failure":
                break
        taken = round(time.monotonic() - begin, 1)
    if os.environ.get("CHARLM_FAST_PROOFS_REPORT"):
        Path(os.environ["CHARLM_FAST_PROOFS_REPORT"]).write_text(json.dumps(report, indent=1))
    details = _details(report)
    if report["result"] not in ("timeout", "tool_failure"):
        saved = {"result": report["result"], "seconds": taken, "details": details}
        races = any(detail.startswith("race: ") for detail in details)
        _keep(placed if races else unplaced, json.dumps(saved, indent=1))
    return Verdict(report["result"], taken, tuple(details))
