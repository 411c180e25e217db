"""Backend ``cpu``: kernels in C++ for the instruction set found at run time."""

from __future__ import annotations

import torch

from charlm_fast import _extension

from . import linear_cross_entropy, lstm
from .generate import generate
from .gradients import lstm_backward, lstm_loss, lstm_loss_backward
from .sample import few_rows, is_set, sample

__all__ = [
    "few_rows",
    "generate",
    "is_set",
    "linear_cross_entropy",
    "lstm",
    "lstm_backward",
    "lstm_loss",
    "lstm_loss_backward",
    "refuses",
    "sample",
    "unavailable",
]

DTYPES = (torch.float32, torch.float64)


def unavailable() -> str | None:
    return _extension.load_native()


def refuses(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cpu":
        return f"it serves tensors on cpu, got {device.type}"
    if dtype not in DTYPES:
        return f"it serves float32 and float64, got {dtype}"
    return None
