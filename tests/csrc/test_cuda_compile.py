"""Every CUDA source for every architecture, without a GPU: it compiles, nothing spills, and tensor
cores are used where they should be."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import ROOT

ARCHITECTURES = (80, 90, 100)
SOURCES = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))

_ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\S+)' for '(?P<arch>sm_\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def _readable(names: list[str]) -> list[str]:
    tool = shutil.which("c++filt")
    if tool is None:
        return names
    done = subprocess.run([tool], input="\n".join(names), capture_output=True, text=True)
    plain = (
        re.sub(r"charlm::cuda::|\(anonymous namespace\)::|^void ", "", n)
        for n in done.stdout.splitlines()
    )
    return [n.split("(")[0] for n in plain]


def _cuobjdump(nvcc: str) -> str | None:
    """The disassembler: beside nvcc, on PATH, or Triton's."""
    candidates = [str(Path(nvcc).resolve().parent / "cuobjdump"), shutil.which("cuobjdump") or ""]
    triton = importlib.util.find_spec("triton")
    for folder in (triton.submodule_search_locations or []) if triton else []:
        candidates.append(f"{folder}/backends/nvidia/bin/cuobjdump")
    return next((c for c in candidates if c and os.access(c, os.X_OK)), None)


def _on_tensor_cores(sass: str) -> dict[tuple[str, str], set[str]]:
    """By architecture and kernel, the kinds of products on tensor cores."""
    found = {}
    for part in re.split(r"^\s*arch = ", sass, flags=re.M)[1:]:
        for function in part.split("Function : ")[1:]:
            kinds = set(re.findall(r"HMMA\.\S+", function))
            found[part.split()[0], function.split()[0]] = kinds
    return found


def _products(name: str) -> set[str]:
    """What a kernel has to multiply with, by its dtype."""
    if "tensor_" not in name:
        return set()
    if re.search(r"_kernelIf", name):
        return {"HMMA.1688.F32.TF32"}
    return {"HMMA.16816.F32" + (".BF16" if "bfloat16" in name else "")}


def _runs(arch: str, name: str) -> bool:
    """A cluster's kernel never runs on sm_80, and without its waits much of it is gone there."""
    return not (arch == "sm_80" and "Lb1E" in name)


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.name)
def test_compiles_without_spills(source, nvcc, run, tmp_path):
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    log = run(
        [nvcc, "-std=c++17", "-O3", "-Xptxas", "-v", *targets]
        + ["-c", str(source), "-o", str(tmp_path / "out.o")]
    )
    entries = [m.groupdict() for m in _ENTRY.finditer(log)]
    assert {e["arch"] for e in entries} == {f"sm_{a}" for a in ARCHITECTURES}
    print()
    for entry, name in zip(entries, _readable([e["name"] for e in entries]), strict=True):
        shared = re.search(r"(\d+) bytes smem", entry["rest"])
        print(
            f"{entry['arch']:7} {name:58} {entry['registers']:>3} registers, "
            f"{shared[1] if shared else 0:>5} B shared, "
            f"{int(entry['stores']) + int(entry['loads'])} B spilled"
        )
    spilling = [(e["arch"], e["name"]) for e in entries if int(e["stores"]) or int(e["loads"])]
    assert not [found for found in spilling if _runs(*found)]

    tool = _cuobjdump(nvcc)
    if tool is None:
        return
    used = _on_tensor_cores(run([tool, "-sass", str(tmp_path / "out.o")]))
    assert len(used) == len(entries)
    for (arch, name), kinds in used.items():
        assert kinds == _products(name) or not (kinds or _runs(arch, name)), (arch, name, kinds)
