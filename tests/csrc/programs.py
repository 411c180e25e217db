"""Programs of csrc/cpu and sanitizers/driver.cpp, which runs its operations on random arguments.

The sources are compiled as they are, with headers of our own in the place of torch's.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .conftest import ROOT

STAND_INS = Path(__file__).parent / "sanitizers"
SHIPPED = "-O3 -ffp-contract=fast"  # as setup.py has it
WARNINGS = ["-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Werror"]


def driver_sources() -> list[Path]:
    return [*sorted((ROOT / "csrc" / "cpu").rglob("*.cpp")), STAND_INS / "driver.cpp"]


def execute(
    command: list[str], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
        timeout=900,
    )


def run(command: list[str]) -> str:
    done = execute(command)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def compile_all(
    sources: list[Path], folder: Path, command: Callable[[Path], list[str]]
) -> list[str]:
    """Object files of the sources, two at a time, each by its own command."""

    def compile_one(source: Path) -> str:
        object_file = str(folder / f"{source.parent.name}.{source.name}.o")
        includes = [f"-I{STAND_INS}", f"-I{ROOT}/csrc"]
        run([*command(source), "-std=c++17", *includes, "-c", str(source), "-o", object_file])
        return object_file

    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        return list(pool.map(compile_one, sources))
