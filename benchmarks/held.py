"""One machine in the place of an older one: our kernels and the peers held to its instructions.

What the peers' libraries may use they read from the environment when they are loaded, so that a
program that is to be held starts itself anew. MKL heeds its variable on Intel's CPUs; on a Zen 3
its products were as fast with SSE4_2 as without, so that there "portable" holds ours harder than
the peers' products.
"""

from __future__ import annotations

import os
import sys

import torch

import charlm_fast

KEY = "CHARLM_BENCHMARK_ISA"  # tells a process and those that it starts
VARIABLES = {
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
    },
    "portable": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
    },
}


def held_to() -> str | None:
    """The instruction set that this process is held to, if it is."""
    return os.environ.get(KEY)


def kernels() -> str:
    """The instruction set of our kernels in use, or why there are none."""
    if charlm_fast.backends()["cpu"] is not None:
        return "none"
    return torch.ops.charlm_fast_native.isa("").split(",")[0]


def force() -> None:
    """Our kernels, in a process whose environment says so.

    Raises:
        RuntimeError: there are no kernels of ours here.
        ValueError: none of them is for these instructions, or the machine does not have them.
    """
    if wanted := held_to():
        why_not = charlm_fast.backends()["cpu"]
        if why_not is not None:
            raise RuntimeError(f"no kernels to hold to {wanted}: {why_not}")
        torch.ops.charlm_fast_native.isa(wanted)


def hold(isa: str | None) -> None:
    """Go on held to ``isa``, of ``VARIABLES``; None changes nothing. Does not return at first."""
    if isa is not None and held_to() != isa:
        sys.stdout.flush()
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **VARIABLES[isa], KEY: isa})
    force()
