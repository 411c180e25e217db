"""Loss of a language model and its gradients, from a backend's separate operations."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from torch import Tensor


def lstm_loss(
    module: ModuleType,
    embedding: Tensor,
    weights: list[Tensor],
    head: Tensor,
    head_bias: Tensor,
    h0: Tensor,
    c0: Tensor,
    ids: Tensor,
    targets: Tensor,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Loss, h, c, and what :func:`lstm_loss_backward` needs. weights: four by layer."""
    biases = [weights[k + 2] + weights[k + 3] for k in range(0, len(weights), 4)]
    y, h, c, reserve = module.lstm(
        embedding, ids, None, h0, c0, _one_bias(weights, biases), True, False, False, True
    )
    loss, *found = module.linear_cross_entropy(
        y.flatten(0, 1), head, head_bias, targets.flatten(), True
    )
    return loss, h, c, [y, reserve, *found, *biases]


def lstm_loss_backward(
    module: ModuleType,
    dloss: Tensor | None,
    dhn: Tensor | None,
    dcn: Tensor | None,
    embedding: Tensor,
    weights: list[Tensor],
    h0: Tensor,
    c0: Tensor,
    ids: Tensor,
    saved: list[Tensor],
    need_input: bool,
    need_weights: bool,
) -> list[Tensor]:
    """Gradients of embedding, h0, c0, head, head_bias and the weights."""
    y, reserve, dy, dhead, dbias, *biases = saved
    found: list[Any] = [None, dhead, dbias]
    if dloss is not None:
        found = [dy * dloss, dhead * dloss, dbias * dloss]
    dx, dh0, dc0, dweights = module.lstm_backward(
        None if dloss is None else found[0].view_as(y), dhn, dcn, embedding, ids, None, h0, c0,
        _one_bias(weights, biases), True, False, False, y, reserve, need_input, need_weights,
    )  # fmt: skip
    if dloss is None:
        found = [None, dhead * 0, dbias * 0]
    grads = [dx, dh0, dc0, *found[1:]]
    for k in range(0, len(dweights), 3):
        grads += [*dweights[k : k + 3], dweights[k + 2]]
    return grads


def _one_bias(weights: list[Tensor], biases: list[Tensor]) -> list[Tensor]:
    out = []
    for k, bias in enumerate(biases):
        out += [weights[4 * k], weights[4 * k + 1], bias]
    return out
