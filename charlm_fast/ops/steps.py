"""Few steps of an LSTM on the CPU: a cell, or a model that is fed its own output.

Such a step takes 10 us with 64 units, and the dispatcher, autograd and Python around the operation
for sequences, which rearranges the weights first, ten times as long. So these functions call the
kernel for unpacked weights themselves where nothing can observe that, and return None elsewhere:
the caller then takes the long way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from charlm_fast.kernels.native import cpu

from .checks import is_batched
from .dispatch import chooses_cpu
from .function import Function
from .registration import PLAIN, nothing_watches, plain, wants_gradient

# Up to so many rows in all are faster from unpacked weights, at every size from 64 units on; of
# weights that a core's cache does not hold, up to so many steps (docs/benchmarks.md, "Step").
STEP_ROWS = 16
CACHED_UNITS, STEPS = 512, 4
CELL_ROWS, CELL_ROWS_WITH_GRADIENT = 16, 32  # beyond, torch's products are faster

Optional = Tensor | None


def lstm_steps(
    x: Tensor, h0: Tensor, c0: Tensor, weights: Sequence[Tensor], has_bias: bool
) -> tuple[Tensor, Tensor, Tensor] | None:
    """As :func:`charlm_fast.functional.lstm` for few rows in one direction, without gradients.

    Args:
        x: (T, B, I).
        h0, c0: (L, B, H).
        weights: by layer ``w_ih``, ``w_hh`` and, if ``has_bias``, ``b_ih`` and ``b_hh``.

    Returns:
        y (T, B, H), h_n and c_n (L, B, H), or None where this is no case for it.
    """
    if not nothing_watches():
        return None
    T, B, I = x.shape
    L, _, H = h0.shape
    if not x.is_cpu or not 0 < T * B <= STEP_ROWS or (H > CACHED_UNITS and T > STEPS):
        return None
    x, h0, c0 = x.contiguous(), h0.contiguous(), c0.contiguous()
    tensors = (x, h0, c0, *weights)
    if wants_gradient(*tensors) or not _serves(tensors) or c0.shape != h0.shape:
        return None
    each = 4 if has_bias else 2
    if len(weights) != each * L or not all(
        _fits(weights[k : k + each], H if k else I, H) for k in range(0, len(weights), each)
    ):
        return None
    y, hn, cn = x.new_empty(T, B, H), torch.empty_like(h0), torch.empty_like(c0)
    addresses = [w.data_ptr() for w in weights]
    if not has_bias:
        addresses = [a for k in range(0, 2 * L, 2) for a in (*addresses[k : k + 2], 0, 0)]
    cpu.lstm_steps()(
        x.dtype is torch.float64, T, B, I, H, x.data_ptr(), h0.data_ptr(), c0.data_ptr(),
        y.data_ptr(), hn.data_ptr(), cn.data_ptr(), 0, *addresses,
    )  # fmt: skip
    return y, hn, cn


def lstm_cell(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
) -> tuple[Tensor, Tensor] | None:
    """As :func:`charlm_fast.functional.lstm_cell`, with gradients; None where it is no case for it.

    Args:
        x: (B, I).
        h0, c0: (B, H).
    """
    if not nothing_watches():
        return None
    shape = h0.shape
    if len(shape) != 2 or x.dim() != 2 or c0.shape != shape:
        return None
    B, H = shape
    weights = (w_ih, w_hh) if b_ih is None or b_hh is None else (w_ih, w_hh, b_ih, b_hh)
    if (
        not x.is_cpu
        or not 0 < B <= CELL_ROWS_WITH_GRADIENT
        or x.shape[0] != B
        or (b_ih is None) is not (b_hh is None)
        or not _fits(weights, x.shape[1], H)
    ):
        return None
    record = wants_gradient(x, h0, c0, *weights)
    if B > CELL_ROWS and not record:
        return None
    x, h0, c0 = x.contiguous(), h0.contiguous(), c0.contiguous()
    tensors = (x, h0, c0, *weights)
    if not _serves(tensors):
        return None
    if record:
        return _Cell.apply(*tensors)
    h, c = torch.empty_like(h0), torch.empty_like(c0)
    _run(x, h0, c0, weights, h, c, None)
    return h, c


def _serves(tensors: Sequence[Tensor]) -> bool:
    """Whether the kernel may take these as they are: plain, contiguous, of one dtype that it has,
    on the CPU; and whether that is the backend. A loop, as generators take twice as long."""
    dtype = tensors[0].dtype
    for t in tensors:
        if type(t) not in PLAIN or t.dtype is not dtype or not t.is_cpu or not t.is_contiguous():
            return False
    return (
        dtype in cpu.DTYPES
        and chooses_cpu()
        and not torch.is_autocast_enabled("cpu")
        and forward_ad._current_level < 0
    )


def _fits(weights: Sequence[Tensor], I: int, H: int) -> bool:
    if weights[0].shape != (4 * H, I) or weights[1].shape != (4 * H, H):
        return False
    return len(weights) == 2 or weights[2].shape == weights[3].shape == (4 * H,)


def _address(tensor: Optional) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _run(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    weights: Sequence[Tensor],
    h: Tensor,
    c: Tensor,
    gates: Optional,
) -> None:
    B, I = x.shape
    addresses = [w.data_ptr() for w in weights]
    cpu.lstm_steps()(
        x.dtype is torch.float64, 1, B, I, h0.shape[1], x.data_ptr(), h0.data_ptr(), c0.data_ptr(),
        0, h.data_ptr(), c.data_ptr(), _address(gates), *addresses, *(0,) * (4 - len(addresses)),
    )  # fmt: skip


class _Cell(Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, h0: Tensor, c0: Tensor, *weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        h, c, gates = torch.empty_like(h0), torch.empty_like(c0), h0.new_empty(4 * h0.numel())
        _run(x, h0, c0, weights, h, c, gates)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, h0, c0, *weights, gates, c)
        return h, c

    @staticmethod
    def backward(ctx: Any, dh: Optional, dc: Optional) -> tuple[Optional, ...]:  # type: ignore[override]
        needs = ctx.needs_input_grad
        *inputs, gates, c = ctx.saved_tensors
        given = [g for g in (dh, dc) if g is not None]
        if not given:
            return (None,) * len(needs)
        if torch.is_grad_enabled() or not plain(*given) or any(is_batched(g) for g in given):
            return _differentiable(inputs, needs, (dh, dc))
        x, h0, c0, *weights = inputs
        dh, dc = (None if g is None else g.contiguous() for g in (dh, dc))
        dx = torch.empty_like(x) if needs[0] else None
        dh0 = torch.empty_like(h0) if needs[1] else None
        dc0 = torch.empty_like(c0)
        dweights = [torch.empty_like(w) for w in weights] if any(needs[3:]) else []
        B, I = x.shape
        none = (0,) * (4 - len(dweights))
        cpu.lstm_cell_backward()(
            x.dtype is torch.float64, B, I, h0.shape[1], _address(dh), _address(dc),
            *(t.data_ptr() for t in (x, h0, c0, gates, c, weights[0], weights[1])), 0, 0,
            _address(dx), _address(dh0), dc0.data_ptr(), *(d.data_ptr() for d in dweights), *none,
        )  # fmt: skip
        found = (dx, dh0, dc0, *(dweights or (None,) * len(weights)))
        return tuple(d if need else None for d, need in zip(found, needs, strict=True))


def _differentiable(
    inputs: Sequence[Tensor], needs: Sequence[bool], gradients: Sequence[Optional]
) -> tuple[Optional, ...]:
    """The gradients through torch's own cell: as a graph (create_graph), or of many at once."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # A view for each argument, so that a tensor given twice gets two gradients.
        leaves = [v.view_as(v) if need else v for v, need in zip(inputs, needs, strict=True)]
        x, h0, c0, *weights = leaves
        outputs = torch.lstm_cell(x, (h0, c0), *weights)
    pairs = [(o, g) for o, g in zip(outputs, gradients, strict=True) if g is not None]
    found = iter(
        torch.autograd.grad(
            [o for o, _ in pairs],
            [v for v, need in zip(leaves, needs, strict=True) if need],
            [g for _, g in pairs],
            create_graph=again,
            allow_unused=True,
        )
    )
    return tuple(next(found) if need else None for need in needs)
