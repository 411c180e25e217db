"""Few steps of an LSTM on the CPU: a cell, or a model that is fed its own output.

Such a step takes 10 us with 64 units, and the dispatcher, autograd and Python around the operation
for sequences, which rearranges the weights first, ten times as long. So these functions call the
kernel for unpacked weights themselves where nothing can observe that, and return None elsewhere:
the caller then takes the long way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from charlm_fast.kernels.native import cpu

from . import dispatch
from .checks import is_batched
from .dispatch import chooses_cpu
from .function import Function, differentiable
from .registration import PLAIN_TYPES, nothing_watches, wants_gradient

# Up to so many rows in all are faster from unpacked weights, at every size from 64 units on; of
# weights that a core's cache does not hold, up to so many steps (docs/benchmarks.md, "Step").
STEP_ROWS = 16
CACHED_UNITS, STEPS = 512, 4
CELL_ROWS, CELL_ROWS_WITH_GRADIENT = 16, 32  # beyond, torch's products are faster

Optional = Tensor | None
_facts = attrgetter("dtype", "is_cpu", "layout")


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
    if not nothing_watches() or wants_gradient(x, h0, c0, *weights):
        return None
    return unwatched_steps(x, h0, c0, weights, has_bias)


def unwatched_steps(
    x: Any, h0: Any, c0: Any, weights: Sequence[Tensor], has_bias: bool
) -> tuple[Tensor, Tensor, Tensor] | None:
    """As :func:`lstm_steps` where nothing watches and no gradient is wanted, of anything at all."""
    if (
        not PLAIN_TYPES.issuperset((type(x), type(h0), type(c0)))
        or not chooses_cpu("lstm_steps", c0, False)
        or torch.is_autocast_enabled("cpu")
        or forward_ad._current_level >= 0
    ):
        return None
    return cpu.few_steps()(x, h0, c0, weights, has_bias, STEP_ROWS, CACHED_UNITS, STEPS)


def module_calls() -> Callable[[Any, Any, Any], Any] | None:
    """What answers the calls of LSTM modules in C, or None where it cannot be.

    It takes a module, its input and hx, and returns y and the pair of states, or None where a
    gradient may be wanted, something sees operations, or an argument is none of plain tensors.
    """
    if cpu.unavailable() is not None:
        return None
    return cpu.module_call()(torch.nn.RNNBase, dispatch, STEP_ROWS, CACHED_UNITS, STEPS)


def registered_weights(own: dict[str, Any]) -> tuple[Tensor, ...] | None:
    """The parameters of an ``nn.RNNBase`` from its ``__dict__``, in the order of their names.

    None where an attribute hides one of them, one is not there, or there is no kernel.
    """
    return None if cpu.unavailable() is not None else cpu.registered_weights()(own)


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
        not 0 < B <= CELL_ROWS_WITH_GRADIENT
        or not H
        or x.shape[0] != B
        or not x.shape[1]
        or (b_ih is None) is not (b_hh is None)
        or not _fits(weights, x.shape[1], H)
    ):
        return None
    record = wants_gradient(x, h0, c0, *weights)
    if B > CELL_ROWS and not record:
        return None
    if not _serves((x, h0, c0), weights, record):
        return None
    x, h0, c0 = x.contiguous(), h0.contiguous(), c0.contiguous()
    if record:
        return _Cell.apply(x, h0, c0, *weights)
    h, c = torch.empty_like(h0), torch.empty_like(c0)
    _run(x, h0, c0, weights, h, c, None)
    return h, c


def _serves(loose: Sequence[Tensor], contiguous: Sequence[Tensor], gradient: bool | None) -> bool:
    """Whether the kernel may take these, once the loose ones are contiguous as the others are:
    plain, strided, of one dtype that it has, on the CPU; and whether that is the backend, which a
    check may have found slower for a state like the last of ``loose``, unless ``gradient`` is None.
    By maps, as loops take half as long again and generators twice."""
    tensors = (*loose, *contiguous)
    if not PLAIN_TYPES.issuperset(map(type, tensors)):
        return False
    dtype = contiguous[0].dtype
    right = (dtype, True, torch.strided)
    for facts in map(_facts, tensors):
        if facts != right:
            return False
    return (
        dtype in cpu.DTYPES
        and not any(map(Tensor.is_neg, tensors))
        and all(map(Tensor.data_ptr, tensors))  # else zeros that nobody has written down
        and all(map(Tensor.is_contiguous, contiguous))
        and chooses_cpu("lstm_steps", loose[-1] if gradient is not None else None, bool(gradient))
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
        h, c, gates = (
            torch.empty_like(h0),
            torch.empty_like(c0),
            h0.new_empty(h0.shape[0], 4, h0.shape[1]),
        )
        _run(x, h0, c0, weights, h, c, gates)
        ctx.set_materialize_grads(False)
        # What torch saves, and no more: the rest may be written to before the backward pass. The
        # outputs too, so c is kept as a copy.
        by_x, by_h, _, *by_weight = ctx.needs_input_grad
        read = (any(by_weight), any(by_weight), True, by_x, by_h)
        inputs = (x, h0, c0, *weights)
        ctx.others = tuple(None if k < len(read) and read[k] else t for k, t in enumerate(inputs))
        ctx.save_for_backward(
            *(t for t, other in zip(inputs, ctx.others, strict=True) if other is None),
            gates,
            c.clone(),
        )
        return h, c

    @staticmethod
    def backward(ctx: Any, dh: Optional, dc: Optional) -> tuple[Optional, ...]:  # type: ignore[override]
        needs = ctx.needs_input_grad
        *saved, gates, c = ctx.saved_tensors
        found = iter(saved)
        inputs = [next(found) if other is None else other for other in ctx.others]
        given = [g for g in (dh, dc) if g is not None]
        if not given:
            return (None,) * len(needs)
        x, h0, c0, *weights = inputs
        B, I = x.shape
        H = h0.shape[1]
        if torch.is_grad_enabled():
            return differentiable(_torch_cell, inputs, needs, (dh, dc))
        # What comes back may be another tensor: hooks give and take as they like.
        plainly = (
            nothing_watches()
            and not any(is_batched(g) for g in given)
            and _serves(given, (x, h0, c0, gates, c, *weights), None)
            and _fits(weights, I, H)
            and gates.shape == (B, 4, H)
            and h0.shape == c0.shape == c.shape == (B, H)
        )
        if not plainly:
            return _by_operations(inputs, needs, dh, dc, gates, c)
        dh, dc = (None if g is None else g.contiguous() for g in (dh, dc))
        dx = torch.empty_like(x) if needs[0] else None
        dh0 = torch.empty_like(h0) if needs[1] else None
        dc0 = torch.empty_like(c0)
        dweights = [torch.empty_like(w) for w in weights] if any(needs[3:]) else []
        none = (0,) * (4 - len(dweights))
        cpu.lstm_cell_backward()(
            x.dtype is torch.float64, B, I, H, _address(dh), _address(dc),
            *(t.data_ptr() for t in (x, h0, c0, gates, c, weights[0], weights[1])), 0, 0,
            _address(dx), _address(dh0), dc0.data_ptr(), *(d.data_ptr() for d in dweights), *none,
        )  # fmt: skip
        grads = (dx, dh0, dc0, *(dweights or (None,) * len(weights)))
        return tuple(d if need else None for d, need in zip(grads, needs, strict=True))


def _torch_cell(x: Tensor, h0: Tensor, c0: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
    return torch.lstm_cell(x, (h0, c0), *weights)


def _by_operations(
    inputs: Sequence[Tensor],
    needs: Sequence[bool],
    dh: Optional,
    dc: Optional,
    gates: Tensor,
    c: Tensor,
) -> tuple[Optional, ...]:
    """The gradients by torch's operations, which transforms and subclasses know."""
    x, h0, c0, *weights = inputs
    i, f, g, o = gates.unbind(1)
    squashed = c.tanh()
    dh = torch.zeros_like(c) if dh is None else dh
    d = dh * o * (1 - squashed * squashed)
    d = d if dc is None else d + dc
    dgates = torch.cat(
        [
            d * g * i * (1 - i),
            d * c0 * f * (1 - f),
            d * i * (1 - g * g),
            dh * squashed * o * (1 - o),
        ],
        -1,
    )
    found = [
        dgates @ weights[0],
        dgates @ weights[1],
        d * f,
        dgates.t() @ x,
        dgates.t() @ h0,
        *(dgates.sum(0) for _ in weights[2:]),
    ]
    return tuple(v if need else None for v, need in zip(found, needs, strict=True))
