"""Where rows of steps are cut at their resets, as one packed batch of the pieces."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .registration import below_autograd, register


def _run(resets: Tensor) -> tuple[Tensor, ...]:
    T, B = resets.shape
    device = resets.device
    begins = resets.t().contiguous()  # (B, T): a piece has neighbouring places
    kept = ~begins[:, 0]
    begins = begins.clone()
    begins[:, 0] = True
    begins = begins.flatten()
    starts = begins.nonzero().squeeze(1)
    ends = torch.cat([starts[1:], starts.new_full((1,), T * B)])
    lengths = ends - starts
    by_length = lengths.argsort(descending=True, stable=True)
    rank = torch.empty_like(by_length)
    rank[by_length] = torch.arange(len(rank), device=device)
    piece = begins.cumsum(0) - 1
    step = torch.arange(T * B, device=device) - starts[piece]  # in its piece
    alive = torch.bincount(step)  # pieces that have such a step
    base = alive.cumsum(0) - alive
    packed = base[step] + rank[piece]  # (B * T,)
    order = torch.empty_like(packed)
    there = torch.arange(T * B, device=device)
    order[packed] = (there % T) * B + there // T
    places = packed.view(B, T).t().reshape(-1)
    first = rank[piece.view(B, T)[:, 0]]
    last = rank[piece.view(B, T)[:, -1]]
    sorted_starts = starts[by_length]
    pieces = sorted_starts // T, sorted_starts % T, lengths[by_length]
    whole = torch.zeros(len(starts), dtype=torch.bool, device=device)
    whole[first] = kept
    return order, places, alive.cpu(), *pieces, whole, first, last


def _fake(resets: Tensor) -> tuple[Tensor, ...]:
    T, B = resets.shape
    context = torch.library.get_ctx()
    pieces = context.new_dynamic_size(min=1)
    steps = context.new_dynamic_size(min=1)

    def ids(n: Any) -> Tensor:
        return resets.new_empty(n, dtype=torch.int64)

    sizes = torch.empty(steps, dtype=torch.int64, device="cpu")
    kept = resets.new_empty(pieces)
    by_piece = ids(pieces), ids(pieces), ids(pieces)
    return ids(T * B), ids(T * B), sizes, *by_piece, kept, ids(B), ids(B)


def _autograd(resets: Tensor) -> tuple[Tensor, ...]:
    return below_autograd(_segments, resets)


_segments = register(
    f"segments(Tensor resets) -> ({', '.join(['Tensor'] * 9)})",
    _run,
    _fake,
    _autograd,
)


def segments(resets: Tensor) -> tuple[Tensor, ...]:
    """Cut B rows of T steps before each step whose reset is set.

    Args:
        resets: (T, B) bool, T and B at least 1.

    Returns:
        With S pieces, sorted by length, the longest first: the places (T * B,) in (T, B) that the
        rows of the packed batch come from; their inverse (T * B,); the batch sizes (steps,) on the
        CPU; of each piece (S,) its row, the step at which it begins, its length, and whether it
        starts with the row, at a step without a reset (bool); and the pieces with which each row
        begins and ends, (B,) each.
    """
    return _segments(resets)
