"""Which kernel serves a shape, and with which tiles: the one table behind launches and checks."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from .generate_kernels import generate_text
from .head_kernels import cross_entropy
from .lstm_resident import lstm_backward_resident, lstm_forward_resident
from .lstm_row import lstm_backward_row, lstm_forward_row
from .lstm_streamed import lstm_backward_streamed, lstm_forward_streamed
from .sample_kernels import sample_pick, sample_rows, sample_spans

SMS = 132  # an H200's; where another GPU has fewer or more, these bounds are a little off
RESIDENT_UNITS = 128
RESIDENT_BYTES = 160 * 1024  # of shared memory, at that many units
ROW_HELD = 8  # blocks: 128 KB, half of an SM's registers
ROW_UNITS = 1024  # beyond, a product's tile no longer fits a row program's registers
DRAWN_COLUMNS = 4096  # the longest row that a program draws from without reading it again
DRAWN_AT_ONCE = 4096  # logits of a program: some 16 a thread, each with a weight in float64

# TRITON_INTERPRET=1 counts when the kernels are imported, and not after.
INTERPRETED = not isinstance(cross_entropy, triton.JITFunction)


def loop_bound(count: int) -> Any:
    """A kernel's argument that bounds a loop. The interpreter of Triton 3.6 wraps integers in
    arrays of one element, which NumPy 2.4 takes for a bound no more."""
    return tl.constexpr(count) if INTERPRETED else count


class Launch(NamedTuple):
    """A kernel and all that its launch needs besides the tensors."""

    kernel: Any
    rows: int  # a program's
    meta: dict[str, Any]  # the kernel's constexpr arguments
    warps: int

    def options(self) -> dict[str, Any]:
        """Loops say for themselves which of them are pipelined. All registers of an SM are offered:
        left to itself, the assembler spills to fit more blocks, where there is one. FP fusion is
        stated, because Triton's default for it changes in 3.10."""
        return {
            "num_warps": self.warps,
            "num_stages": 1,
            "maxnreg": min(255, (1 << 16) // (32 * self.warps)),
            "enable_fp_fusion": True,
        }


def padded(size: int, least: int = 1) -> int:
    return max(least, 1 << (size - 1).bit_length())


def lstm_launch(
    backward: bool,
    hidden: int,
    recurrent: int,
    batch: int,
    dtype: torch.dtype,
    has_proj: bool,
    reverse: bool,
    tf32: bool = False,
    shared: int = 227 * 1024,
) -> Launch:
    """The kernel for one layer. shared: bytes of shared memory that a block may have."""
    half = dtype in (torch.float16, torch.bfloat16)
    if half and not has_proj and hidden <= RESIDENT_UNITS and shared >= RESIDENT_BYTES:
        block = 8
        meta: dict[str, Any] = {
            "H": hidden,
            "HP": padded(hidden, 16),
            "BLOCK_B": block,
            "REVERSE": reverse,
        }
        kernel = lstm_backward_resident if backward else lstm_forward_resident
        return Launch(kernel, block, meta, 8)
    # A row a program uses the most SMs; beyond that sharing the weights' reads pays more, the
    # sooner the larger they are.
    tensor_cores = half or (dtype == torch.float32 and tf32 and batch > 1)
    few = batch <= (4 * SMS if hidden <= 128 else SMS)
    if not tensor_cores and few and not has_proj and hidden <= ROW_UNITS:
        width = padded(hidden, 32)
        single = dtype == torch.float32
        # Fewer weights at a time in float64, or a thread's registers spill.
        tile = 4096 if single else 2048
        block_k = max(1, tile // (width if backward else 4 * width))
        blocks = -(-(4 * hidden if backward else hidden) // block_k)
        held = min(blocks, ROW_HELD - 2 * backward) if single and hidden <= 128 else 0
        meta = {
            "H": hidden,
            "HP": width,
            "BLOCK_K": block_k,
            "HELD": held,
            "REVERSE": reverse,
        }
        kernel = lstm_backward_row if backward else lstm_forward_row
        return Launch(kernel, 1, meta, 8 if held else 16)
    block = 16 if tensor_cores else min(16, padded(batch))
    meta = {
        "H": hidden,
        "R": recurrent,
        "BLOCK_B": block,
        "BLOCK_H": 64,
        "BLOCK_K": 64 if half else 32 if tensor_cores else 16,
        "STAGES": 3,
        "PRECISION": "tf32" if tensor_cores and not half else "ieee",
        "REVERSE": reverse,
    }
    kernel = lstm_backward_streamed if backward else lstm_forward_streamed
    return Launch(kernel, block, meta, 8)


def head_launch(vocabulary: int) -> Launch:
    block = min(1024, padded(vocabulary, 32))
    rows = max(1, 1024 // block)
    return Launch(cross_entropy, rows, {"V": vocabulary, "ROWS": rows, "BLOCK_V": block}, 4)


def key_bits_unused(dtype: torch.dtype) -> int:
    """Of the bits by which logits are ranked, widened to float32: how many are zero in all."""
    return {torch.bfloat16: 16, torch.float16: 13}.get(dtype, 0)


def _drawn(vocabulary: int, dtype: torch.dtype, share: int = 1) -> tuple[int, int]:
    """(rows, columns) of the tile from which a program draws. share: who else needs registers."""
    share *= 2 if dtype == torch.float64 else 1
    block = min(DRAWN_COLUMNS // share, padded(vocabulary, 16))
    return max(1, DRAWN_AT_ONCE // share // block), block


def sample_launch(vocabulary: int, dtype: torch.dtype, top_k: bool, top_p: bool) -> Launch:
    rows, block = _drawn(vocabulary, dtype)
    meta = {
        "V": vocabulary,
        "ROWS": rows,
        "BLOCK_V": block,
        "TOP_K": top_k,
        "TOP_P": top_p,
        "LOW": key_bits_unused(dtype),
    }
    return Launch(sample_rows, rows, meta, 8)


def spans_launch(vocabulary: int, dtype: torch.dtype) -> Launch:
    rows, block = _drawn(vocabulary, dtype)
    meta = {"V": vocabulary, "SPANS": -(-vocabulary // block), "ROWS": rows, "BLOCK_V": block}
    return Launch(sample_spans, rows, meta, 8)


def pick_launch(vocabulary: int, dtype: torch.dtype) -> Launch:
    return spans_launch(vocabulary, dtype)._replace(kernel=sample_pick)


def generate_launch(
    hidden: int,
    inputs: int,
    layers: int,
    vocabulary: int,
    batch: int,
    dtype: torch.dtype,
    top_k: bool,
    top_p: bool,
    tf32: bool = False,
) -> Launch:
    half = dtype in (torch.float16, torch.bfloat16)
    tensor_cores = half or (dtype == torch.float32 and tf32 and batch > 1)
    share = 2 if dtype == torch.float64 else 1
    drawn, columns = _drawn(vocabulary, dtype, 2)
    # A row a program while there are SMs; then the rows that fill them once.
    if tensor_cores:
        # 32 rows' addresses spill where there are more than a few blocks of units to walk.
        rows = 16 if batch <= 16 * SMS or hidden > 128 or vocabulary > 128 else 32
    elif batch <= SMS or (dtype == torch.float64 and vocabulary > columns):
        rows = 1  # also where more would spill: their addresses beside a long row's draw
    else:
        rows = min(4 if dtype == torch.float64 else 16, padded(-(-batch // SMS)))
    if rows == 1:
        width = min(128, padded(hidden, 32))
        block_h, block_k, block_v, head_k = width, max(1, 1024 // share // width), 128, 32 // share
    elif tensor_cores:
        block_h, block_v = 64, 64
        block_k = head_k = 64 if half else 32
    else:
        # Without tensor cores a thread loads its operands of the whole depth of a block at once.
        block_h, block_v, block_k, head_k = 32, 32, 16, 16
    meta = {
        "E": inputs,
        "H": hidden,
        "L": layers,
        "V": vocabulary,
        "BLOCK_B": rows,
        "BLOCK_H": block_h,
        "BLOCK_K": block_k,
        "BLOCK_V": block_v,
        "HEAD_K": head_k,
        "STAGES": 3 if tensor_cores else 2,
        "PRECISION": "tf32" if tensor_cores and not half else "ieee",
        "ROWS": min(rows, drawn),
        "DRAWN_V": columns,
        "TOP_K": top_k,
        "TOP_P": top_p,
        "LOW": 0,  # logits are float32 at least
    }
    return Launch(generate_text, rows, meta, 8)
