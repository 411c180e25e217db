"""CPU operations whose products over all steps run in C++ too, one call each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..reserve import previous_rows, split_reserve
from .lstm import contiguous, folds

Gradient = Tensor | None


def _optional(tensor: Gradient) -> Gradient:
    return None if tensor is None else tensor.contiguous()


def lstm_backward(
    dy: Gradient,
    dhn: Gradient,
    dcn: Gradient,
    x: Tensor,
    ids: Tensor | None,
    batch_sizes: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    weights: list[Tensor],
    has_bias: bool,
    has_proj: bool,
    reverse: bool,
    y: Tensor,
    reserve: Tensor,
    need_input: bool,
    need_weights: bool,
    overwrite: bool = False,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """``overwrite``: the gradients of the gates may take their place in ``reserve``."""
    native = torch.ops.charlm_fast_native
    folded = ids is not None and folds(x, ids)
    y, h0, inputs = y.contiguous(), h0.contiguous(), x
    if ids is not None and not folded:
        inputs = x[ids]
    seen: list[Tensor] = []
    if batch_sizes is not None and need_weights:
        layers, _, columns = h0.shape
        steps, rows = batch_sizes.shape[0], y.shape[0]
        has = (layers, rows, c0.shape[2], columns, has_proj)
        outputs = [*split_reserve(reserve, *has).inner, y]
        seen = [
            previous_rows(first, output, steps, batch_sizes, reverse)
            for first, output in zip(h0, outputs, strict=True)
        ]
    dx, dh0, dc0, dweights = native.lstm_gradients(
        _optional(dy),
        _optional(dhn),
        _optional(dcn),
        inputs.contiguous(),
        ids.contiguous() if ids is not None and folded else None,
        batch_sizes,
        seen,
        h0,
        c0.contiguous(),
        contiguous(weights),
        has_bias,
        has_proj,
        reverse,
        y,
        reserve,
        need_input,
        need_weights,
        overwrite,
    )
    if not need_input:
        return x.new_empty(0), dh0, dc0, dweights
    if ids is not None and not folded:
        dx = native.segment_sum(dx, ids.reshape(-1).contiguous(), x.shape[0])
    return dx.view(x.shape), dh0, dc0, dweights


def lstm_loss(
    embedding: Tensor,
    weights: list[Tensor],
    head: Tensor,
    head_bias: Tensor,
    h0: Tensor,
    c0: Tensor,
    ids: Tensor,
    targets: Tensor,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Loss, h, c, and what :func:`lstm_loss_backward` needs."""
    return torch.ops.charlm_fast_native.lstm_loss(
        embedding.contiguous(),
        contiguous(weights),
        head.contiguous(),
        head_bias.contiguous(),
        h0.contiguous(),
        c0.contiguous(),
        ids.contiguous(),
        targets.contiguous(),
    )


def lstm_loss_backward(
    dloss: Gradient,
    dhn: Gradient,
    dcn: Gradient,
    embedding: Tensor,
    weights: list[Tensor],
    h0: Tensor,
    c0: Tensor,
    ids: Tensor,
    saved: list[Tensor],
    need_input: bool,
    need_weights: bool,
    overwrite: bool,
) -> list[Tensor]:
    """Gradients of embedding, h0, c0, head, head_bias and the weights (empty where unneeded).

    ``overwrite``: ``saved`` is not read again and may be used up.
    """
    arguments: list[Any] = [embedding.contiguous(), contiguous(weights)]
    arguments += [h0.contiguous(), c0.contiguous(), ids.contiguous(), saved]
    return torch.ops.charlm_fast_native.lstm_loss_backward(
        *(_optional(d) for d in (dloss, dhn, dcn)), *arguments, need_input, need_weights, overwrite
    )
