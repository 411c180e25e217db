"""Benchmarks on a machine that stands in for an older one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import held
import machine
import pytest

import charlm_fast

ROOT = Path(__file__).parents[1]
needs_kernels = pytest.mark.skipif(
    charlm_fast.backends()["cpu"] is not None, reason="needs the C++ kernels"
)


@needs_kernels
def test_ours_and_the_peers_are_held_and_the_rows_stand_apart(tmp_path: Path):
    if sys.platform != "linux":
        pytest.skip("torch reads these variables on x86-64 alone")
    command = [sys.executable, "benchmarks/measure.py", "--isa", "portable", "--seconds", "0"]
    command += ["--only", "sampling", "--match", "B=1 V=100,", "--out", str(tmp_path)]
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("*.json")
    assert "_held_to_portable_" in path.name
    found = json.loads(path.read_text())
    assert "held to portable" in found["machine"]["name"] and found["rows"]
    assert found["machine"]["kernels"] == "portable"
    assert found["machine"]["ATEN_CPU_CAPABILITY"] == "default"
    assert held.held_to() is None and "held" not in machine.device_name("cpu")


@needs_kernels
def test_instructions_that_are_not_here_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(held.KEY, "sse9")
    with pytest.raises(ValueError, match="'sse9' is not available"):
        held.force()


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]):
    import measure

    with pytest.raises(SystemExit):
        measure.parse(["--isa", "sse9"])
    assert "avx2" in capsys.readouterr().err
