"""What ``import charlm_fast`` costs a program that has torch, counted in modules: a clock is noisy."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys, torch
before = set(sys.modules)
import charlm_fast
print("\\n".join(set(sys.modules) - before))
"""


def test_importing_brings_our_own_modules_alone() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    new = set(done.stdout.split())
    ours = {name for name in new if name.split(".")[0] == "charlm_fast"}
    assert "charlm_fast.nn.modules" in ours
    # Measured: 76. No matplotlib, numpy, triton, Hugging Face or compiler of torch.
    assert len(ours) <= 80
    assert new - ours <= {"torch.utils._device"}  # of torch itself, small
