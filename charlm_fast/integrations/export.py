"""``torch.export``: programs that run where this package is not, with any number of steps.

A program exported with a fixed number of steps is unrolled by torch itself. With a dynamic one it
keeps this package's operation, which :func:`decompositions` turns into torch's ``scan``::

    program = torch.export.export(model, (x,), dynamic_shapes=({0: Dim("T", min=1, max=9999)},))
    program = program.run_decompositions(decompositions())
    torch._inductor.aoti_compile_and_package(program, package_path="model.pt2")
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._higher_order_ops.scan import scan_op

__all__ = ["decompositions"]


def decompositions() -> dict[Any, Callable[..., Any]]:
    """torch's default table for ``ExportedProgram.run_decompositions``, and our LSTM in it.

    An LSTM becomes one product for all inputs and a ``scan`` over the steps: right wherever
    ``scan`` is known, and slower than the operation that it replaces.
    """
    table = torch.export.default_decompositions()
    table[torch.ops.charlm_fast.lstm.default] = _lstm
    return table


def _lstm(
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
    """The operation of ``ops.lstm``: (T, B, I) to y, h_n, c_n and what is saved: nothing."""
    if batch_sizes is not None:
        return NotImplemented  # a packed sequence has another number of rows at each step
    y = x if ids is None else F.embedding(ids, x)
    each = 2 + has_bias + has_proj
    hs, cs = [], []
    if reverse:
        y = y.flip(0)
    for layer in range(h0.shape[0]):
        w_ih, w_hh, *rest = weights[each * layer : each * (layer + 1)]
        gates = F.linear(y, w_ih, rest[0] if has_bias else None)
        w_hr = rest[-1:] if has_proj else []
        state = torch.cat([h0[layer], c0[layer]], -1)
        state, y = scan_op(_step, [state], [gates], (w_hh, *w_hr))
        h, c = state.split([h0.shape[2], c0.shape[2]], -1)
        hs.append(h)
        cs.append(c)
    if reverse:
        y = y.flip(0)
    return y, torch.stack(hs), torch.stack(cs), x.new_empty(0)


def _step(state: Tensor, gates: Tensor, w_hh: Tensor, *w_hr: Tensor) -> tuple[Tensor, Tensor]:
    """One step of all rows: the next h (B, R) and c (B, H) side by side, and h, the output.

    A scan's results must share no storage; a copy of h would be taken out by AOTInductor.
    """
    h, c = state.split([w_hh.shape[1], w_hh.shape[0] // 4], -1)
    i, f, g, o = (gates + F.linear(h, w_hh)).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    if w_hr:
        h = F.linear(h, w_hr[0])
    return torch.cat([h, c], -1), h
