"""Which kernel serves a shape, and with which tiles: the one table behind launches and checks."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from .head_kernels import cross_entropy
from .lstm_resident import lstm_backward_resident, lstm_forward_resident
from .lstm_streamed import lstm_backward_streamed, lstm_forward_streamed

RESIDENT_UNITS = 128  # more would not fit one SM's registers, in 16 bits or half of float32
# Beyond this many batch rows float32 products pay more by sharing the weights' reads than by
# spreading rows over SMs: four rounds of 132 programs.
RESIDENT_FLOAT_ROWS = 528


# TRITON_INTERPRET=1 counts when the kernels are imported, and not after.
INTERPRETED = not isinstance(cross_entropy, triton.JITFunction)


def loop_bound(count: int) -> Any:
    """A kernel's argument that bounds a loop. The interpreter of Triton 3.6 wraps integers in
    arrays of one element, which NumPy 2.4 takes for a bound no more."""
    return tl.constexpr(count) if INTERPRETED else count


class Launch(NamedTuple):
    kernel: Any
    rows: int  # a program's
    meta: dict[str, Any]  # the kernel's constexpr arguments
    warps: int

    def options(self) -> dict[str, Any]:
        """Loops say for themselves which of them are pipelined. FP fusion is stated, because
        Triton's default for it changes in 3.10."""
        return {"num_warps": self.warps, "num_stages": 1, "enable_fp_fusion": True}


def padded(size: int, least: int = 1) -> int:
    return max(least, 1 << (size - 1).bit_length())


def lstm_launch(
    backward: bool,
    hidden: int,
    recurrent: int,
    batch: int,
    dtype: torch.dtype,
    has_proj: bool,
    tf32: bool,
    reverse: bool,
) -> Launch:
    """The kernel for one layer: what fits in registers stays there."""
    half = dtype in (torch.float16, torch.bfloat16)
    single = dtype == torch.float32 and batch <= RESIDENT_FLOAT_ROWS
    if hidden <= RESIDENT_UNITS and not has_proj and (half or single):
        block = 16 if half else 1
        meta = {
            "H": hidden,
            "HP": padded(hidden, 16),
            "BLOCK_B": block,
            "HELD": 4 if half or hidden <= 64 else 2,
            "REVERSE": reverse,
        }
        kernel = lstm_backward_resident if backward else lstm_forward_resident
        return Launch(kernel, block, meta, 16 if hidden > 64 else 8)
    tensor_cores = half or (dtype == torch.float32 and tf32)
    block = 16 if tensor_cores else min(16, padded(batch))
    meta = {
        "H": hidden,
        "R": recurrent,
        "BLOCK_B": block,
        "BLOCK_H": 64,
        "BLOCK_K": 64 if half else 32 if tensor_cores else 16,
        "STAGES": 3,
        "PRECISION": "tf32" if tf32 and dtype == torch.float32 else "ieee",
        "REVERSE": reverse,
    }
    kernel = lstm_backward_streamed if backward else lstm_forward_streamed
    return Launch(kernel, block, meta, 4)


def head_launch(vocabulary: int) -> Launch:
    block = min(1024, padded(vocabulary, 32))
    rows = max(1, 1024 // block)
    return Launch(cross_entropy, rows, {"V": vocabulary, "ROWS": rows, "BLOCK_V": block}, 4)
