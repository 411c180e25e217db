"""The recurrence in C++, the products over all steps in BLAS."""

from __future__ import annotations

import torch
from torch import Tensor

from ..precision import takes_tf32
from ..reserve import layer_weights, previous_rows, split_reserve


def contiguous(tensors: list[Tensor]) -> list[Tensor]:
    """Each as the kernels read it."""
    return [t.contiguous() for t in tensors]


def folds(x: Tensor, ids: Tensor) -> bool:
    """Whether layer 0's product over the whole vocabulary is less work than over the rows."""
    return x.shape[0] <= ids.numel()


def lstm(
    x: Tensor,
    ids: Tensor | None,
    batch_sizes: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    weights: list[Tensor],
    has_bias: bool,
    has_proj: bool,
    reverse: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if ids is not None and not folds(x, ids):
        x, ids = x[ids], None
    if ids is not None:
        ids = ids.contiguous()
    native = torch.ops.charlm_fast_native
    return (native.lstm_forward_tf32 if takes_tf32(x.device, x.dtype) else native.lstm_forward)(
        x.contiguous(),
        ids,
        batch_sizes,
        h0.contiguous(),
        c0.contiguous(),
        contiguous(weights),
        has_bias,
        has_proj,
        reverse,
        save,
    )


def lstm_backward(
    dy: Tensor | None,
    dhn: Tensor | None,
    dcn: Tensor | None,
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
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    weights = contiguous(weights)
    layers, _, recurrent = h0.shape
    hidden = c0.shape[2]
    rows = x if ids is None else ids
    steps = rows.shape[0] if batch_sizes is None else batch_sizes.shape[0]
    folded = ids is not None and folds(x, ids)
    native = torch.ops.charlm_fast_native
    backward = native.lstm_backward_tf32 if takes_tf32(x.device, x.dtype) else native.lstm_backward
    dgates, dx, dh0, dc0, dprojected = backward(
        None if dy is None else dy.contiguous(),
        None if dhn is None else dhn.contiguous(),
        None if dcn is None else dcn.contiguous(),
        x.shape[-1],
        batch_sizes,
        c0.contiguous(),
        weights,
        has_bias,
        has_proj,
        reverse,
        reserve,
        steps,
        need_input and not folded,
    )
    count = dgates.shape[1]
    inputs = x if ids is None or folded else x[ids]
    inputs = inputs.reshape(-1, x.shape[-1])
    by_layer = layer_weights(weights, has_bias, has_proj)
    # Layer 0's gradients meet the input as rows of the sequence, or summed over the rows of
    # each id as rows of the embedding.
    first = dgates[0]
    flat = None if ids is None else ids.reshape(-1).contiguous()
    if folded:
        first = torch.ops.charlm_fast_native.segment_sum(first, flat, x.shape[0])
    if not need_input:
        dx = x.new_empty(0)
    elif folded:
        dx = first @ by_layer[0][0]
    elif flat is not None:
        dx = torch.ops.charlm_fast_native.segment_sum(dx, flat, x.shape[0])
    else:
        dx = dx.view(x.shape)

    dweights: list[Tensor] = []
    if not need_weights:
        return dx, dh0, dc0, [w.new_empty(0) for w in weights]
    saved = split_reserve(reserve, layers, count, hidden, recurrent, has_proj)
    outputs = [*saved.inner, y.reshape(count, recurrent)]
    for l in range(layers):
        dg = dgates[l]
        dweights.append((first if l == 0 else dg).t() @ (inputs if l == 0 else outputs[l - 1]))
        dweights.append(_recurrent_gradient(dg, h0[l], outputs[l], steps, batch_sizes, reverse))
        if has_bias:
            dweights.append((first if l == 0 else dg).sum(0))
        if has_proj:
            dweights.append(dprojected[l].t() @ saved.hidden[l])
    return dx, dh0, dc0, dweights


def _recurrent_gradient(
    dgates: Tensor,
    h0: Tensor,
    outputs: Tensor,
    steps: int,
    batch_sizes: Tensor | None,
    reverse: bool,
) -> Tensor:
    """dgates^T @ (the state each row saw), without a copy of the states for equal lengths."""
    if batch_sizes is not None:
        return dgates.t() @ previous_rows(h0, outputs, steps, batch_sizes, reverse)
    batch, inner = h0.shape[0], outputs.shape[0] - h0.shape[0]
    if reverse:
        edge, later, seen = dgates[inner:], dgates[:inner], outputs[batch:]
    else:
        edge, later, seen = dgates[:batch], dgates[batch:], outputs[:inner]
    return (edge.t() @ h0).addmm_(later.t(), seen)
