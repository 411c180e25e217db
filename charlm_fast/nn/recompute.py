"""A long sequence in less memory: its activations are computed again for the gradient."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

State = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor, State | None], tuple[Tensor, State]]

# Below, what a segment keeps is less than the weights, and starting one costs more than its steps.
LEAST_ROWS = 256


def segment_steps(steps: int, batch: int) -> int:
    """Steps in a segment of a sequence: its square root, in segments of equal length.

    N segments of T / N steps keep N states and, one at a time, the activations of T / N steps:
    least where N is about sqrt(T), Chen et al. 2016, https://arxiv.org/abs/1604.06174.
    """
    least = max(math.isqrt(steps - 1) + 1, -(-LEAST_ROWS // batch))
    count = max(1, steps // least)
    return -(-steps // count)


def in_segments(
    loss: Loss, ids: Tensor, targets: Tensor, state: State | None
) -> tuple[Tensor, State]:
    """The summed loss of a sequence, keeping no more than the states between its segments.

    Each segment runs again in the backward pass, with the masks of dropout that it had: one that
    else holds for a sequence holds for a segment. The loss and its gradients are, bit for bit,
    those of the same segments kept in memory.

    Args:
        loss: gives the summed loss () and the next state of ids and targets (t, B) and a state.
        ids, targets: (T, B) int64.
        state: (h, c), each (L, B, H), or None.
    """
    length = segment_steps(*ids.shape)
    losses = []
    for k in range(0, ids.shape[0], length):
        part = ids[k : k + length], targets[k : k + length]
        one, state = checkpoint(loss, *part, state, use_reentrant=False)
        losses.append(one)
    assert state is not None
    return torch.stack(losses).sum(dtype=torch.float64).to(losses[0].dtype), state
