"""LSTM as the textbook loop (Hochreiter and Schmidhuber 1997; forget gate, Gers et al. 2000)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..reserve import layer_weights, previous_rows, split_reserve, step_sizes


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
    batch = h0.shape[1]
    steps = rows.shape[0] if batch_sizes is None else batch_sizes.shape[0]
    sizes = step_sizes(steps, batch, batch_sizes)
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + size)
    order = range(steps - 1, -1, -1) if reverse else range(steps)
    inputs = x.reshape(-1, x.shape[-1]) if ids is None else x[ids.reshape(-1)]

    gates_saved, cells_saved, outputs, hidden_saved, hn, cn = [], [], [], [], [], []
    for l, (w_ih, w_hh, bias, w_hr) in enumerate(layer_weights(weights, has_bias, has_proj)):
        pre = F.linear(inputs, w_ih, bias)
        h, c = h0[l], c0[l]
        by_step: list[tuple[Tensor, ...]] = [()] * steps
        for t in order:
            n = sizes[t]
            gates = pre[starts[t] : starts[t + 1]] + h[:n] @ w_hh.t()
            i, f, g, o = gates.chunk(4, dim=1)
            i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
            cell = f * c[:n] + i * g
            hidden = o * cell.tanh()
            out = hidden if w_hr is None else hidden @ w_hr.t()
            by_step[t] = (torch.cat([i, f, g, o], 1), cell, out, hidden)
            h = out if n == batch else torch.cat([out, h[n:]])
            c = cell if n == batch else torch.cat([cell, c[n:]])
        gates, cells, inputs, hidden = (torch.cat(part) for part in zip(*by_step, strict=True))
        gates_saved.append(gates)
        cells_saved.append(cells)
        outputs.append(inputs)
        hidden_saved.append(hidden)
        hn.append(h)
        cn.append(c)

    parts = gates_saved + cells_saved + outputs[:-1] + (hidden_saved if has_proj else [])
    reserve = torch.cat([p.reshape(-1) for p in parts]) if save else x.new_empty(0)
    y = inputs.view(*rows.shape[: 1 if batch_sizes is not None else 2], inputs.shape[-1])
    return y, torch.stack(hn), torch.stack(cn), reserve


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
    hidden_size = c0.shape[2]
    inputs = x.reshape(-1, x.shape[-1]) if ids is None else x[ids.reshape(-1)]
    rows = inputs.shape[0]
    steps = (x if ids is None else ids).shape[0] if batch_sizes is None else batch_sizes.shape[0]
    sizes = step_sizes(steps, batch, batch_sizes)
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + size)
    saved = split_reserve(reserve, layers, rows, hidden_size, recurrent, has_proj)
    outputs = [*saved.inner, y.reshape(rows, recurrent)]
    dh0 = torch.zeros_like(h0) if dhn is None else dhn.clone()
    dc0 = torch.zeros_like(c0) if dcn is None else dcn.clone()
    dy = torch.zeros_like(outputs[-1]) if dy is None else dy.reshape(rows, recurrent)

    by_layer = layer_weights(weights, has_bias, has_proj)
    dweights: list[Tensor] = []
    for l in reversed(range(layers)):
        w_ih, w_hh, _, w_hr = by_layer[l]
        cells_before = previous_rows(c0[l], saved.cells[l], steps, batch_sizes, reverse)
        outputs_before = previous_rows(h0[l], outputs[l], steps, batch_sizes, reverse)
        dh, dc = dh0[l], dc0[l]
        dgates = torch.empty_like(saved.gates[l])
        dout = torch.empty_like(dy)
        for t in range(steps) if reverse else reversed(range(steps)):
            n, part = sizes[t], slice(starts[t], starts[t + 1])
            i, f, g, o = saved.gates[l, part].chunk(4, dim=1)
            squashed = saved.cells[l, part].tanh()
            dout[part] = dy[part] + dh[:n]
            dhidden = dout[part] if w_hr is None else dout[part] @ w_hr
            d = dc[:n] + dhidden * o * (1 - squashed * squashed)
            di = d * g * i * (1 - i)
            df = d * cells_before[part] * f * (1 - f)
            dg = d * i * (1 - g * g)
            do = dhidden * squashed * o * (1 - o)
            dgates[part] = torch.cat([di, df, dg, do], 1)
            dc[:n] = d * f
            dh[:n] = dgates[part] @ w_hh
        below = inputs if l == 0 else outputs[l - 1]
        found = [dgates.t() @ below, dgates.t() @ outputs_before]
        if has_bias:
            found.append(dgates.sum(0))
        if has_proj:
            found.append(dout.t() @ saved.hidden[l])
        dweights = found + dweights
        dy = dgates @ w_ih

    empty = x.new_empty(0)
    if not need_weights:
        dweights = [w.new_empty(0) for w in weights]
    if not need_input:
        return empty, dh0, dc0, dweights
    if ids is not None:
        return torch.zeros_like(x).index_add_(0, ids.reshape(-1), dy), dh0, dc0, dweights
    return dy.view(x.shape), dh0, dc0, dweights


def lstm_vjp(
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
) -> tuple[Tensor, ...]:
    """(dx, dh0, dc0, *dweights) as a graph, to be differentiated again. For use under autograd."""
    outputs = lstm(x, ids, batch_sizes, h0, c0, weights, has_bias, has_proj, reverse, save=False)
    pairs = [(o, g) for o, g in zip(outputs[:3], (dy, dhn, dcn), strict=True) if g is not None]
    return torch.autograd.grad(
        [o for o, _ in pairs],
        [x, h0, c0, *weights],
        [g for _, g in pairs],
        create_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
