"""Backend ``cpu``: kernels in C++ for the instruction set found at run time."""

from __future__ import annotations

import torch

from charlm_fast import _extension

from . import linear_cross_entropy, lstm
from .generate import generate
from .gradients import lstm_backward, lstm_loss, lstm_loss_backward
from .int8 import generate_int8, linear_int8, lstm_int8
from .sample import few_rows, is_set, sample
from .steps import few_steps, lstm_cell_backward, lstm_steps, module_call, registered_weights

__all__ = [
    "few_rows",
    "few_steps",
    "generate",
    "generate_int8",
    "has_bfloat16",
    "is_set",
    "linear_cross_entropy",
    "linear_int8",
    "lstm",
    "lstm_backward",
    "lstm_cell_backward",
    "lstm_int8",
    "lstm_loss",
    "lstm_loss_backward",
    "lstm_steps",
    "module_call",
    "refuses",
    "registered_weights",
    "sample",
    "unavailable",
]

OVERWRITES = True  # lstm_backward can use up its reserve
DTYPES = (torch.float32, torch.float64)
IN_BFLOAT16 = ("lstm", "lstm_backward")


def unavailable() -> str | None:
    return _extension.load_native()


def has_bfloat16() -> bool:
    """Whether the instruction set in use multiplies bfloat16."""
    if unavailable() is not None:
        return False
    return torch.ops.charlm_fast_native.isa("").split(",")[0] == "avx512_bf16"


def refuses(device: torch.device, dtype: torch.dtype, operation: str) -> str | None:
    if device.type != "cpu":
        return f"it serves tensors on cpu, got {device.type}"
    if dtype in DTYPES:
        return None
    if dtype == torch.bfloat16 and operation in IN_BFLOAT16:
        return None if has_bfloat16() else "it serves bfloat16 on CPUs with AVX512_BF16 only"
    return f"it serves float32 and float64, got {dtype}"
