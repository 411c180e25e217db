"""One pass over rows split among threads; few rows on this thread, past torch's dispatcher."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from charlm_fast import _extension


def sample(
    logits: Tensor,
    temperature: Tensor,
    top_k: int,
    top_p: float,
    floor: float,
    seed: int,
    offset: int,
) -> tuple[Tensor, Tensor]:
    return torch.ops.charlm_fast_native.sample(
        logits.contiguous(), temperature.contiguous(), top_k, top_p, floor, seed, offset
    )


@functools.cache
def is_set() -> Callable[[bytes], bool]:
    """Whether a variable of the environment is set to anything, found out in no time."""
    return _extension.native_module().is_set


@functools.cache
def few_rows() -> Callable[..., int]:
    """:func:`sample` on this thread and in memory that the caller holds.

    The function takes whether all is float64, the address of logits (rows, V), rows, V, one
    temperature, the addresses of ids (rows) and log-probabilities (rows, or 0 for none), and what
    ``sample`` takes after the temperature; for None the seed is what ids hold in their first place.
    It returns the first row without a draw, or ``rows``.
    """
    return _extension.native_module().sample_few
