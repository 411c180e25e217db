"""Plain PyTorch: any device, any dtype, differentiable to any order. The oracle's twin."""

from __future__ import annotations

import torch

from .generate import generate
from .head import linear_cross_entropy
from .int8 import linear_int8, lstm_int8
from .lstm import lstm, lstm_backward
from .sample import sample

__all__ = [
    "generate",
    "linear_cross_entropy",
    "linear_int8",
    "lstm",
    "lstm_backward",
    "lstm_int8",
    "refuses",
    "sample",
    "unavailable",
]


def unavailable() -> str | None:
    return None


def refuses(device: torch.device, dtype: torch.dtype, operation: str) -> str | None:
    return None
