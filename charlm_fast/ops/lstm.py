"""The LSTM over a whole sequence, all layers in one direction: op, shapes and gradients."""

from __future__ import annotations

import math
import sys
from typing import Any

import torch
from torch import Tensor

from charlm_fast.kernels.precision import by_rounding, rounding
from charlm_fast.kernels.reference.lstm import lstm as loop
from charlm_fast.kernels.reference.lstm import lstm_vjp
from charlm_fast.kernels.reserve import reserve_size

from .checks import check_batch_sizes, check_ids, check_lstm, is_batched, without_autocast
from .dispatch import cpu_loses, forced_backend, name_of, select
from .function import Function
from .registration import (
    PLAIN,
    below_autograd,
    hands_out_saved,
    last_pass,
    nothing_watches,
    plain,
    register,
    wants_gradient,
)

# Arguments are positional throughout, in the order of the schemas at the foot of this section;
# the kernels of each backend take the same.


def _run(
    x: Tensor, ids: Tensor | None, batch_sizes: Tensor | None, h0: Tensor, c0: Tensor, *args: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    module = select("lstm", x.device, x.dtype, "", c0.shape[2], h0.shape[1], args[-1])
    if ids is not None:
        check_ids(ids, x.shape[0], "ids", module)
    if batch_sizes is not None:
        check_batch_sizes(batch_sizes, (x if ids is None else ids).shape[0], h0.shape[1])
    with without_autocast(x.device):
        return module.lstm(x, ids, batch_sizes, h0, c0, *args)


def _fake(x, ids, batch_sizes, h0, c0, weights, has_bias, has_proj, reverse, save):  # type: ignore[no-untyped-def]
    rows = x.shape[:-1] if ids is None else ids.shape
    y = x.new_empty(*rows, h0.shape[2])
    size = reserve_size(h0.shape[0], math.prod(rows), c0.shape[2], h0.shape[2], has_proj)
    hn, cn = (torch.empty_like(v, memory_format=torch.contiguous_format) for v in (h0, c0))
    return y, hn, cn, x.new_empty(size if save else 0)


# In backward: the node, the name, the tuple of arguments and the question itself. A hook that was
# put on a saved tensor later, or whoever read it from the node, adds one.
OWN_REFERENCES = 4


class _LSTM(Function):
    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:  # type: ignore[override]
        return below_autograd(_lstm, *args[:5], list(args[9:]), *args[5:9])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, ids, batch_sizes, h0, c0, *ctx.flags = inputs[:8]
        y, _, _, reserve = output
        ctx.mark_non_differentiable(reserve)
        ctx.set_materialize_grads(False)
        ctx.backend, ctx.rounding = _kept(x, h0, c0), rounding(x.device)
        ctx.save_for_backward(x, ids, batch_sizes, h0, c0, y, reserve, *inputs[9:])

    @staticmethod
    def backward(ctx: Any, dy: Any, dhn: Any, dcn: Any, _: Any) -> tuple[Any, ...]:  # type: ignore[override]
        needs = ctx.needs_input_grad
        if dy is None and dhn is None and dcn is None:
            return (None,) * len(needs)
        x, ids, batch_sizes, h0, c0, y, reserve, *weights = ctx.saved_tensors
        need_weights = any(needs[9:])
        arguments = (
            dy, dhn, dcn, x, ids, batch_sizes, h0, c0, weights, *ctx.flags,
            y, reserve, needs[0], need_weights,
        )  # fmt: skip
        if any(g is not None and is_batched(g) for g in (dy, dhn, dcn)):
            dx, dh0, dc0, *dweights = _batched_backward(
                dy, dhn, dcn, x, ids, batch_sizes, h0, c0, weights, *ctx.flags
            )
        elif (
            getattr(ctx, "owns_reserve", False)
            and sys.getrefcount(reserve) <= OWN_REFERENCES
            and (in_place := _in_place(ctx.backend, dy, dhn, dcn, x, h0, c0, y, *weights))
        ):
            dx, dh0, dc0, dweights = in_place(*arguments, overwrite=True)
        else:
            dx, dh0, dc0, dweights = by_rounding(
                ctx.rounding, _lstm_backward, *arguments, ctx.backend
            )
        grads = [d if need else None for d, need in zip(dweights, needs[9:], strict=True)]
        return (
            dx if needs[0] else None,
            None,
            None,
            dh0 if needs[3] else None,
            dc0 if needs[4] else None,
            *(None,) * 4,
            *grads,
        )


def _kept(x: Tensor, h0: Tensor, c0: Tensor) -> str:
    """The backend of a forward pass, for its gradient: autograd may run that on a thread that never
    saw a forced one, and after another table of a check was adopted.

    A compiled program, whose shapes may vary, chooses when it runs, for both passes alike; and a
    CPU whose kernels serve everywhere has no choice.
    """
    if type(x) not in PLAIN or x.is_meta or (x.is_cpu and not cpu_loses()):
        return forced_backend()
    return name_of(select("lstm", x.device, x.dtype, "", c0.shape[2], h0.shape[1], True))


def _in_place(backend: str, *tensors: Tensor | None) -> Any:
    """A backend's function for a gradient that uses up the reserve, where nobody would see it."""
    given = [t for t in tensors if t is not None]
    if torch.is_grad_enabled() or not (last_pass() and nothing_watches() and plain(*given)):
        return None
    module = select("lstm_backward", given[0].device, given[0].dtype, backend)
    return module.lstm_backward if getattr(module, "OVERWRITES", False) else None


def _batched_backward(dy, dhn, dcn, x, ids, batch_sizes, h0, c0, weights, *flags):  # type: ignore[no-untyped-def]
    """By the reference's operations: vmap has no rule for one that takes lists."""
    inputs, again = (x, h0, c0, *weights), torch.is_grad_enabled()
    with torch.enable_grad(), without_autocast(x.device):
        outputs = loop(x, ids, batch_sizes, h0, c0, weights, *flags, False)[:3]
        pairs = [(o, g) for o, g in zip(outputs, (dy, dhn, dcn), strict=True) if g is not None]
        found = iter(
            torch.autograd.grad(
                [o for o, _ in pairs],
                [v for v in inputs if v.requires_grad],
                [g for _, g in pairs],
                create_graph=again,
                allow_unused=True,
                materialize_grads=True,
            )
        )
    return tuple(next(found) if v.requires_grad else None for v in inputs)


def _autograd(x, ids, batch_sizes, h0, c0, weights, *flags):  # type: ignore[no-untyped-def]
    if wants_gradient(x, h0, c0, *weights):
        return _LSTM.apply(x, ids, batch_sizes, h0, c0, *flags[:3], True, *weights)
    return below_autograd(_lstm, x, ids, batch_sizes, h0, c0, weights, *flags)


_lstm = register(
    "lstm(Tensor x, Tensor? ids, Tensor? batch_sizes, Tensor h0, Tensor c0, Tensor[] weights, "
    "bool has_bias, bool has_proj, bool reverse, bool save) -> (Tensor, Tensor, Tensor, Tensor)",
    _run,
    _fake,
    _autograd,
)


def _run_backward(
    dy: Tensor | None, dhn: Tensor | None, dcn: Tensor | None, x: Tensor, *args: Any
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    *args_, backend = args
    h0, c0 = args_[2:4]
    module = select("lstm_backward", x.device, x.dtype, backend, c0.shape[2], h0.shape[1], True)
    with without_autocast(x.device):
        return module.lstm_backward(dy, dhn, dcn, x, *args_)


def _fake_backward(dy, dhn, dcn, x, ids, batch_sizes, h0, c0, weights, *rest):  # type: ignore[no-untyped-def]
    need_input, need_weights = rest[5], rest[6]

    def like(v: Tensor, needed: bool) -> Tensor:
        return x.new_empty(v.shape if needed else 0)

    return (
        like(x, need_input),
        like(h0, True),
        like(c0, True),
        [like(w, need_weights) for w in weights],
    )


class _LSTMBackward(Function):
    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:  # type: ignore[override]
        weights, rest = args[16:], args[8:16]
        dx, dh0, dc0, dweights = below_autograd(_lstm_backward, *args[:8], list(weights), *rest)
        return dx, dh0, dc0, *dweights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.flags = inputs[8:11]
        ctx.save_for_backward(*inputs[:8], *inputs[16:])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:  # type: ignore[override]
        """Differentiates the reference's own backward: exact, at eager speed."""
        dy, dhn, dcn, x, ids, batch_sizes, h0, c0, *weights = ctx.saved_tensors
        with torch.enable_grad(), without_autocast(x.device):
            leaves: list[Any] = [
                None if v is None else v.detach().requires_grad_()
                for v in (dy, dhn, dcn, x, h0, c0, *weights)
            ]
            dy, dhn, dcn, x, h0, c0, *weights = leaves
            first = lstm_vjp(dy, dhn, dcn, x, ids, batch_sizes, h0, c0, weights, *ctx.flags)
            pairs = [
                (f, g)
                for f, g in zip(first, grads, strict=True)
                if g is not None and g.shape == f.shape and f.requires_grad
            ]
            found = iter(
                torch.autograd.grad(
                    [f for f, _ in pairs],
                    [v for v in leaves if v is not None],
                    [g for _, g in pairs],
                    allow_unused=True,
                    materialize_grads=True,
                )
            )
        d_dy, d_dhn, d_dcn, d_x, d_h0, d_c0, *d_weights = (
            None if v is None else next(found) for v in leaves
        )
        return (d_dy, d_dhn, d_dcn, d_x, None, None, d_h0, d_c0, *(None,) * 8, *d_weights)


def _autograd_backward(dy, dhn, dcn, x, ids, batch_sizes, h0, c0, weights, *rest):  # type: ignore[no-untyped-def]
    if wants_gradient(dy, dhn, dcn, x, h0, c0, *weights):
        dx, dh0, dc0, *dweights = _LSTMBackward.apply(
            dy, dhn, dcn, x, ids, batch_sizes, h0, c0, *rest, *weights
        )
        return dx, dh0, dc0, dweights
    return below_autograd(_lstm_backward, dy, dhn, dcn, x, ids, batch_sizes, h0, c0, weights, *rest)


_lstm_backward = register(
    "lstm_backward(Tensor? dy, Tensor? dhn, Tensor? dcn, Tensor x, Tensor? ids, "
    "Tensor? batch_sizes, Tensor h0, Tensor c0, Tensor[] weights, bool has_bias, bool has_proj, "
    "bool reverse, Tensor y, Tensor reserve, bool need_input, bool need_weights, str backend) "
    "-> (Tensor, Tensor, Tensor, Tensor[])",
    _run_backward,
    _fake_backward,
    _autograd_backward,
)


def add_biases(b_ih: Tensor, b_hh: Tensor) -> Tensor:
    """b_ih + b_hh, whose gradients are two tensors: those of a sum would be one, given twice."""
    return torch.sub(b_ih, b_hh, alpha=-1)


def lstm(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    weights: list[Tensor],
    *,
    ids: Tensor | None = None,
    batch_sizes: Tensor | None = None,
    has_bias: bool = True,
    has_proj: bool = False,
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """A stack of LSTM layers in one direction, no dropout between them.

    T steps, B rows, I input columns, H hidden units, R = H or the projection, L layers.

    Args:
        x: (T, B, I); with ``batch_sizes`` (N, I) as in a PackedSequence; with ``ids`` an
            embedding (V, I) whose rows ``ids`` are the input.
        h0: (L, B, R).
        c0: (L, B, H).
        weights: by layer ``w_ih`` (4H, I or R), ``w_hh`` (4H, R), the one ``bias`` (4H) if
            ``has_bias``, ``w_hr`` (R, H) if ``has_proj``; gates in the order i, f, g, o.
        ids: int64 (T, B), or (N,) with ``batch_sizes``.
        batch_sizes: int64 (T,) on the CPU, not increasing.
        reverse: run from the last step to the first.

    Returns:
        y (T, B, R) or (N, R), h_n (L, B, R), c_n (L, B, H).

    Raises:
        RuntimeError: shapes, dtypes or devices do not fit together.
        IndexError: an id is out of range (checked on the CPU).
        BackendError: a forced backend cannot serve the call.
    """
    check_lstm(x, ids, batch_sizes, h0, c0, weights, has_bias, has_proj)
    # Under autograd all is saved whatever the flag; a trace is the same with gradients and without.
    save = wants_gradient(x, h0, c0, *weights) and not torch.jit.is_tracing()
    y, hn, cn, _ = _lstm(x, ids, batch_sizes, h0, c0, weights, has_bias, has_proj, reverse, save)
    if (
        save
        and nothing_watches()
        and not hands_out_saved()
        and isinstance(y.grad_fn, _LSTM._backward_cls)
    ):
        y.grad_fn.owns_reserve = True  # type: ignore[union-attr] # no other reference leaves here
    return y, hn, cn
