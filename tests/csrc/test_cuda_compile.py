"""Every CUDA source for every architecture, without a GPU: it compiles and nothing spills."""

from __future__ import annotations

import re
import shutil
import subprocess

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
    spilling = [e["name"] for e in entries if int(e["stores"]) or int(e["loads"])]
    assert not spilling
