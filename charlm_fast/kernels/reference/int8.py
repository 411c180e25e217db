"""The LSTM with 8-bit weights in torch's operations: the integers of the C++ kernels, bit by bit.

A row of activations x is q = round(x / s), with s the least for which the magnitudes of the values
0 1 4 5 of eight, and of 2 3 6 7, sum to at most 126. A product is s w_s (q . w) with w in int8, w_s
its row's scale, and q . w summed exactly, as float64 holds it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..reserve import step_sizes

GROUP_SUM = 126


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """q (N, K), integers from -126 to 126 in x's dtype, and the scales (N, 1), of x (N, K).

    A row of zeros has the scale 0, one with a value that is not finite the scale NaN.
    """
    m = F.pad(x.abs(), (0, -x.shape[1] % 8)).unflatten(1, (-1, 8))
    groups = [(m[..., k] + m[..., k + 4]) + (m[..., k + 1] + m[..., k + 5]) for k in (0, 2)]
    most = torch.stack(groups, 2).flatten(1).amax(1, keepdim=True)
    inverse = torch.where(most > 1e-36, GROUP_SUM / most, 0.0)
    scale = torch.where(most.isfinite(), most * (1 / GROUP_SUM), math.nan)
    return (x * inverse).round().nan_to_num(0.0, 0.0, 0.0), scale


def multiply(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x (N, K) by weight (M, K) in int8, whose rows have the scales (M,): (N, M)."""
    q, s = quantize_rows(x)
    sums = q.double() @ weight.t().double()
    return sums.to(x.dtype) * (s * scale)


def linear_int8(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    y = multiply(x, weight, scale)
    return y if bias is None else y + bias


def lstm_int8(
    x: Tensor,
    batch_sizes: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    weights: list[Tensor],
    has_bias: bool,
    has_proj: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    layers, batch = h0.shape[:2]
    each = 4 + has_bias + 2 * has_proj
    steps = x.shape[0] if batch_sizes is None else batch_sizes.shape[0]
    sizes = step_sizes(steps, batch, batch_sizes)
    rows = x.reshape(-1, x.shape[-1])
    hn, cn = [], []
    for l in range(layers):
        w_ih, s_ih, w_hh, s_hh, *rest = weights[each * l : each * (l + 1)]
        pre = linear_int8(rows, w_ih, s_ih, rest[0] if has_bias else None).split(sizes)
        h, c = h0[l], c0[l]
        outputs: list[Tensor] = [h] * steps
        for t in reversed(range(steps)) if reverse else range(steps):
            n = sizes[t]
            i, f, g, o = (pre[t] + multiply(h[:n], w_hh, s_hh)).chunk(4, 1)
            cell = f.sigmoid() * c[:n] + i.sigmoid() * g.tanh()
            out = o.sigmoid() * cell.tanh()
            if has_proj:
                out = multiply(out, *rest[has_bias:])
            outputs[t] = out
            h, c = torch.cat([out, h[n:]]), torch.cat([cell, c[n:]])
        rows = torch.cat(outputs)
        hn.append(h)
        cn.append(c)
    y = rows.view(*x.shape[:-1], rows.shape[1])
    return y, torch.stack(hn), torch.stack(cn)
