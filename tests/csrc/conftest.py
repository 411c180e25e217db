"""Compilers for tests that build C++ or CUDA sources; absent ones skip their tests."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def run() -> Callable[[list[str]], str]:
    """Runs a command that must succeed and returns what it printed."""
    return _run


@pytest.fixture(scope="session")
def cxx() -> str:
    found = shutil.which(os.environ.get("CXX", "g++"))
    if found is None:
        pytest.skip("no C++ compiler: neither $CXX nor g++ was found")
    return found


@pytest.fixture(scope="session")
def nvcc() -> str:
    homes = [os.environ.get("CUDA_HOME", ""), os.environ.get("CUDA_PATH", "")]
    candidates = [f"{home}/bin/nvcc" for home in homes if home]
    candidates += [shutil.which("nvcc") or "", *sorted(glob.glob("/usr/local/cuda*/bin/nvcc"))]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    pytest.skip("no nvcc: not in CUDA_HOME, on PATH or under /usr/local")
