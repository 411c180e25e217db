"""csrc/cpu by clang, which builds for Macs and for others who prefer it: no warning, right results."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from .programs import WARNINGS, compile_all, driver_sources, run


@pytest.mark.slow
def test_every_operation(tmp_path: Path) -> None:
    if shutil.which("clang++") is None:
        pytest.skip("no clang++: apt-get install clang")
    program = tmp_path / "program"
    command = ["clang++", *WARNINGS]
    made = compile_all(driver_sources(), tmp_path, lambda source: [*command, "-O1"])
    run([*command, *made, "-pthread", "-o", str(program)])
    out = run([str(program), "200", str(random.randrange(1 << 40))])
    assert out.startswith("200 cases on ") and "portable" in out
    print(out)
