"""The layout of what an LSTM forward keeps for its backward, shared by all backends."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Reserve(NamedTuple):
    """Views of the flat reserve. N rows in all steps, L layers, H units, R recurrent columns."""

    gates: Tensor  # (L, N, 4H) activated i, f, g, o
    cells: Tensor  # (L, N, H)
    inner: Tensor  # (L - 1, N, R) outputs of all layers but the last
    hidden: Tensor  # (L, N, H) outputs before the projection, or (0, N, H)


def _shapes(
    layers: int, rows: int, hidden: int, recurrent: int, has_proj: bool
) -> list[tuple[int, int, int]]:
    return [
        (layers, rows, 4 * hidden),
        (layers, rows, hidden),
        (layers - 1, rows, recurrent),
        (layers if has_proj else 0, rows, hidden),
    ]


def reserve_size(layers: int, rows: int, hidden: int, recurrent: int, has_proj: bool) -> int:
    return sum(a * b * c for a, b, c in _shapes(layers, rows, hidden, recurrent, has_proj))


def split_reserve(
    flat: Tensor, layers: int, rows: int, hidden: int, recurrent: int, has_proj: bool
) -> Reserve:
    parts, start = [], 0
    for a, b, c in _shapes(layers, rows, hidden, recurrent, has_proj):
        parts.append(flat.narrow(0, start, a * b * c).view(a, b, c))
        start += a * b * c
    return Reserve(*parts)


def layer_weights(
    weights: list[Tensor], has_bias: bool, has_proj: bool
) -> list[tuple[Tensor, Tensor, Tensor | None, Tensor | None]]:
    """The flat list as (w_ih, w_hh, bias or None, w_hr or None) by layer."""
    each = 2 + has_bias + has_proj
    out = []
    for k in range(0, len(weights), each):
        bias = weights[k + 2] if has_bias else None
        w_hr = weights[k + each - 1] if has_proj else None
        out.append((weights[k], weights[k + 1], bias, w_hr))
    return out


def step_sizes(steps: int, batch: int, batch_sizes: Tensor | None) -> list[int]:
    return [batch] * steps if batch_sizes is None else batch_sizes.tolist()


def previous_rows(
    first: Tensor, rows: Tensor, steps: int, batch_sizes: Tensor | None, reverse: bool
) -> Tensor:
    """What each row of a sequence saw as its state: the row of the step before it, or ``first``.

    first (B, C) initial state, rows (N, C) states after each row. Returns (N, C).
    """
    batch = first.shape[0]
    if batch_sizes is None:
        if reverse:
            return torch.cat([rows[batch:], first])
        return torch.cat([first, rows[: rows.shape[0] - batch]])
    sizes = batch_sizes.tolist()
    offsets = [0]
    for size in sizes:
        offsets.append(offsets[-1] + size)
    parts = []
    for t, size in enumerate(sizes):
        s = t + 1 if reverse else t - 1
        there = min(size, sizes[s]) if 0 <= s < steps else 0
        if there:
            parts.append(rows[offsets[s] : offsets[s] + there])
        if there < size:
            parts.append(first[there:size])
    return torch.cat(parts)
