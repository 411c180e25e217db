"""Rows whose state starts anew in mid-sequence: each piece between resets is a sequence of its own.

All pieces of all rows, the longest first, make one packed batch of as many steps as the longest has
and as many rows as there are pieces.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import ops


@dataclass(frozen=True)
class Segments:
    """S pieces of B rows of T steps, sorted by length, the longest first.

    Args:
        order: (T * B,) int64, the places in (T, B) that the packed rows come from.
        places: (T * B,) int64, its inverse.
        batch_sizes: (steps,) int64 on the CPU, as of a PackedSequence.
        rows: (S,) int64, the row that each piece is of.
        starts, lengths: (S,) int64, the step of its row at which each begins, and its steps.
        kept: (S,) bool, whether it starts with the row, at a step without a reset.
        first, last: (B,) int64, the pieces with which each row begins and ends.
    """

    order: Tensor
    places: Tensor
    batch_sizes: Tensor
    rows: Tensor
    starts: Tensor
    lengths: Tensor
    kept: Tensor
    first: Tensor
    last: Tensor

    def start(self, state: Tensor, directions: int, reset_to_hx: bool) -> Tensor:
        """The states (L * D, S, H) that the pieces start from, given those of the rows.

        Backwards a row starts at its last step, whatever resets it has.
        """
        spread = state.index_select(1, self.rows)
        if reset_to_hx:
            return spread
        kept = self.kept
        if directions == 2:
            ends = torch.zeros_like(kept).index_fill(0, self.last, True)
            kept = torch.stack([kept, ends]).repeat(state.shape[0] // 2, 1)
        return torch.where(kept.unsqueeze(-1), spread, spread.new_zeros(()))

    def end(self, state: Tensor, directions: int) -> Tensor:
        """The states (L * D, B, H) of the rows after all steps, given those of the pieces."""
        forwards = state.index_select(1, self.last)
        if directions == 1:
            return forwards
        backwards = state.index_select(1, self.first)
        return torch.stack([forwards[0::2], backwards[1::2]], 1).flatten(0, 1)


def segments(resets: Tensor) -> Segments:
    """The pieces of rows whose resets are (T, B) bool, T and B at least 1."""
    return Segments(*ops.segments(resets))


def check_resets(
    resets: Tensor, input: Tensor, batch_sizes: Tensor | None, batch_first: bool
) -> None:
    """Raise ValueError unless resets fit a padded batch."""
    if batch_sizes is not None:
        raise ValueError(
            "resets: got a packed input, expected a padded one; cut the sequences at their resets "
            "before packing them"
        )
    if not isinstance(resets, Tensor) or resets.dtype != torch.bool:
        got = resets.dtype if isinstance(resets, Tensor) else type(resets).__name__
        raise ValueError(f"resets: got {got}, expected torch.bool; convert with resets != 0")
    if resets.shape != input.shape[:2]:
        names = "(B, T)" if batch_first else "(T, B)"
        raise ValueError(
            f"resets: got shape {list(resets.shape)}, expected {names} = {list(input.shape[:2])}"
        )
