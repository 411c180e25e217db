"""Plain PyTorch: any device, any dtype, differentiable to any order. The oracle's twin."""

from __future__ import annotations

import torch

from .head import linear_cross_entropy
from .lstm import lstm, lstm_backward

__all__ = ["linear_cross_entropy", "lstm", "lstm_backward", "refuses", "unavailable"]


def unavailable() -> str | None:
    return None


def refuses(device: torch.device, dtype: torch.dtype) -> str | None:
    return None
