"""One draw from each row of logits: ours, and what PyTorch's operations make of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from charlm_fast.nn.functional import sample

TEMPERATURE = 0.8


def logits(rows: int, size: int, device: str = "cpu") -> Tensor:
    """Random logits (rows, size)."""
    return torch.randn(rows, size, device=device) * 2


def ours(rows: int, size: int, device: str = "cpu", **filters: float) -> Callable[[], object]:
    return partial(sample, logits(rows, size, device), TEMPERATURE, **filters)


def multinomial(rows: int, size: int, device: str = "cpu") -> Callable[[], object]:
    z = logits(rows, size, device)
    return lambda: torch.multinomial(torch.softmax(z / TEMPERATURE, -1), 1)


def top_p(rows: int, size: int, p: float, device: str = "cpu") -> Callable[[], object]:
    """With a sort and a running sum, as Hugging Face transformers filter."""
    z = logits(rows, size, device)

    def draw() -> Tensor:
        x = z / TEMPERATURE
        ordered, order = x.sort()
        drop = ordered.softmax(-1).cumsum(-1) <= 1 - p
        drop[:, -1] = False
        x = x.masked_fill(drop.scatter(1, order, drop), -torch.inf)
        return torch.multinomial(torch.softmax(x, -1), 1)

    return draw
