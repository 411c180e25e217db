"""One launch a layer for the recurrence, the products over all steps through torch.

Deterministic: no atomics; the sums over an id's rows go through torch's sorting embedding backward.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from ..precision import products_take_tf32
from ..reserve import layer_weights, previous_rows, reserve_size, split_reserve, step_sizes
from .lstm_streamed import lstm_backward_streamed, lstm_forward_streamed
from .matmul import accumulator, product
from .tiling import Launch, loop_bound, lstm_launch


def _folds(x: Tensor, ids: Tensor) -> bool:
    """Whether layer 0's product over the whole vocabulary is less work than over the rows."""
    return x.shape[0] <= ids.numel()


def _starts(
    steps: int, batch: int, batch_sizes: Tensor | None, device: torch.device
) -> Tensor | None:
    """First row of each step and the end, where steps differ in length."""
    if batch_sizes is None:
        return None
    starts = _starts_on(tuple(step_sizes(steps, batch, batch_sizes)), device)
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        _captured.append(starts)  # the graph reads it whenever it runs
    return starts


_captured: list[Tensor] = []


@functools.lru_cache(maxsize=32)
def _starts_on(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """Kept: a CUDA graph cannot capture the copy, but finds here what the warm-up copied."""
    return torch.cumsum(torch.tensor([0, *sizes]), 0).to(device)


def _launch(
    backward: bool,
    x: Tensor,
    hidden: int,
    recurrent: int,
    batch: int,
    has_proj: bool,
    reverse: bool,
) -> Launch:
    known: dict[str, int] = {}
    if x.is_cuda:
        device: Any = torch.cuda.get_device_properties(x.device)
        known["shared"] = device.shared_memory_per_block_optin
    return lstm_launch(
        backward,
        hidden,
        recurrent,
        batch,
        x.dtype,
        has_proj,
        reverse,
        products_take_tf32(),
        **known,
    )


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
    rows = x if ids is None else ids
    layers, batch, recurrent = h0.shape
    hidden = c0.shape[2]
    steps = rows.shape[0] if batch_sizes is None else batch_sizes.shape[0]
    lead = x.shape[:-1] if ids is None else ids.shape
    count = lead.numel()
    wide = accumulator(x.dtype)
    starts = _starts(steps, batch, batch_sizes, x.device)
    h0, c0 = h0.contiguous(), c0.contiguous()
    hn, cn = torch.empty_like(h0), torch.empty_like(c0)
    reserve, saved = x.new_empty(0), None
    if save:
        reserve = x.new_empty(reserve_size(layers, count, hidden, recurrent, has_proj))
        saved = split_reserve(reserve, layers, count, hidden, recurrent, has_proj)
    launch = _launch(False, x, hidden, recurrent, batch, has_proj, reverse)
    grid = (-(-batch // launch.rows),)

    inputs = x.reshape(-1, x.shape[-1])
    index = None
    if ids is not None:
        if _folds(x, ids):
            index = ids.reshape(-1).contiguous()
        else:
            inputs = x[ids.reshape(-1)]
    for l, (w_ih, w_hh, bias, w_hr) in enumerate(layer_weights(weights, has_bias, has_proj)):
        pre = product(inputs, w_ih.t(), bias)
        w = w_hh.t().contiguous()  # so that a tile's rows are runs of units
        y = saved.inner[l] if saved and l + 1 < layers else x.new_empty(count, recurrent)
        gates = saved.gates[l] if saved else None
        cells = saved.cells[l] if saved else None
        with torch.cuda.device_of(x):
            if launch.kernel is not lstm_forward_streamed:
                launch.kernel[grid](
                    pre,
                    index,
                    starts,
                    h0[l],
                    c0[l],
                    w,
                    y,
                    hn[l],
                    cn[l],
                    gates,
                    cells,
                    loop_bound(steps),
                    batch,
                    **launch.meta,
                    **launch.options(),
                )
            else:
                state = torch.empty(2, batch, hidden, dtype=wide, device=x.device)
                state[0] = c0[l]
                before = y
                if has_proj:
                    before = saved.hidden[l] if saved else x.new_empty(count, hidden)
                launch.kernel[grid](
                    pre,
                    index,
                    starts,
                    h0[l],
                    state,
                    w,
                    None if w_hr is None else w_hr.t().contiguous(),
                    before,
                    y,
                    hn[l],
                    gates,
                    cells,
                    loop_bound(steps),
                    batch,
                    **launch.meta,
                    **launch.options(),
                )
                cn[l] = state[steps % 2]
        inputs, index = y, None
    return inputs.view(*lead, recurrent), hn, cn, reserve


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
    layers, batch, recurrent = h0.shape
    hidden = c0.shape[2]
    steps = (x if ids is None else ids).shape[0] if batch_sizes is None else batch_sizes.shape[0]
    count = (x.shape[:-1] if ids is None else ids.shape).numel()
    wide = accumulator(x.dtype)
    starts = _starts(steps, batch, batch_sizes, x.device)
    saved = split_reserve(reserve, layers, count, hidden, recurrent, has_proj)
    outputs = [*saved.inner, y.reshape(count, recurrent)]
    c0 = c0.contiguous()
    dh = torch.zeros_like(h0, dtype=wide, memory_format=torch.contiguous_format)
    if dhn is not None:
        dh.copy_(dhn)
    dc = torch.zeros_like(c0, dtype=wide)
    if dcn is not None:
        dc.copy_(dcn)
    launch = _launch(True, x, hidden, recurrent, batch, has_proj, reverse)
    grid = (-(-batch // launch.rows),)

    flat = None if ids is None else ids.reshape(-1)
    folded = ids is not None and _folds(x, ids)
    dout = None if dy is None else dy.reshape(count, recurrent).contiguous()
    dx = x.new_empty(0)
    by_layer = layer_weights(weights, has_bias, has_proj)
    found: list[list[Tensor]] = []
    for l in reversed(range(layers)):
        w_ih, w_hh, _, w_hr = by_layer[l]
        dgates = x.new_empty(count, 4 * hidden)
        dprojected = x.new_empty(count, recurrent) if has_proj else None
        with torch.cuda.device_of(x):
            if launch.kernel is not lstm_backward_streamed:
                launch.kernel[grid](
                    dout,
                    starts,
                    c0[l],
                    w_hh.contiguous(),
                    saved.gates[l],
                    saved.cells[l],
                    dgates,
                    dh[l],
                    dc[l],
                    loop_bound(steps),
                    batch,
                    **launch.meta,
                    **launch.options(),
                )
            else:
                state = torch.empty(2, batch, hidden, dtype=wide, device=x.device)
                state[0] = dc[l]
                launch.kernel[grid](
                    dout,
                    starts,
                    c0[l],
                    w_hh.contiguous(),
                    None if w_hr is None else w_hr.contiguous(),
                    saved.gates[l],
                    saved.cells[l],
                    dgates,
                    dprojected,
                    dh[l],
                    state,
                    loop_bound(steps),
                    batch,
                    **launch.meta,
                    **launch.options(),
                )
                dc[l] = state[steps % 2]
        # Layer 0's gradients meet the input as rows of the sequence, or summed over the rows of
        # each id as rows of the embedding.
        rows = dgates
        if l > 0:
            dout = dgates @ w_ih
        else:
            if folded:
                rows = _sum_by_id(dgates, flat, x.shape[0])
            if need_input:
                dx = rows @ w_ih
                if ids is not None and not folded:
                    dx = _sum_by_id(dx, flat, x.shape[0])
                dx = dx.view(x.shape)
        if need_weights:
            below = outputs[l - 1]
            if l == 0:
                below = x.reshape(-1, x.shape[-1]) if ids is None or folded else x[flat]
            seen = previous_rows(h0[l], outputs[l], steps, batch_sizes, reverse)
            layer = [rows.t() @ below, dgates.t() @ seen]
            if has_bias:
                layer.append(rows.sum(0))
            if dprojected is not None:
                layer.append(dprojected.t() @ saved.hidden[l])
            found.append(layer)
    if need_weights:
        dweights = [d for layer in reversed(found) for d in layer]
    else:
        dweights = [w.new_empty(0) for w in weights]
    return dx, dh.to(x.dtype), dc.to(x.dtype), dweights


def _sum_by_id(rows: Tensor, ids: Tensor | None, count: int) -> Tensor:
    assert ids is not None
    # In 16 bits each partial sum of a frequent id would round.
    wide = rows.to(accumulator(rows.dtype))
    return torch.ops.aten.embedding_dense_backward(wide, ids, count, -1, False).to(rows.dtype)
