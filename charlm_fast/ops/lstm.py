"""The LSTM over a whole sequence, all layers in one direction: op, shapes and gradients."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from charlm_fast.kernels.reference.lstm import lstm_vjp
from charlm_fast.kernels.reserve import reserve_size

from .checks import check_batch_sizes, check_ids, check_lstm, without_autocast
from .dispatch import forced_backend, select


@torch.library.custom_op("charlm_fast::lstm", mutates_args=())
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
    module = select("lstm", x.device, x.dtype)
    if ids is not None:
        check_ids(ids, x.shape[0], "ids")
    if batch_sizes is not None:
        check_batch_sizes(batch_sizes, (x if ids is None else ids).shape[0], h0.shape[1])
    with without_autocast(x.device):
        return module.lstm(
            x, ids, batch_sizes, h0, c0, weights, has_bias, has_proj, reverse, save
        )


@_lstm.register_fake
def _(x, ids, batch_sizes, h0, c0, weights, has_bias, has_proj, reverse, save):  # type: ignore[no-untyped-def]
    rows = x.shape[:-1] if ids is None else ids.shape
    y = x.new_empty(*rows, h0.shape[2])
    size = reserve_size(h0.shape[0], math.prod(rows), c0.shape[2], h0.shape[2], has_proj)
    return y, torch.empty_like(h0), torch.empty_like(c0), x.new_empty(size if save else 0)


@torch.library.custom_op("charlm_fast::lstm_backward", mutates_args=())
def _lstm_backward(
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
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    module = select("lstm_backward", x.device, x.dtype, backend)
    with without_autocast(x.device):
        dx, dh0, dc0, dweights = module.lstm_backward(
            dy,
            dhn,
            dcn,
            x,
            ids,
            batch_sizes,
            h0,
            c0,
            weights,
            has_bias,
            has_proj,
            reverse,
            y,
            reserve,
            need_input,
            need_weights,
        )
    # One not asked for comes back empty, in whatever shape suited the backend.
    return dx if need_input else x.new_empty(0), dh0, dc0, dweights


@_lstm_backward.register_fake
def _(  # type: ignore[no-untyped-def]
    dy,
    dhn,
    dcn,
    x,
    ids,
    batch_sizes,
    h0,
    c0,
    weights,
    has_bias,
    has_proj,
    reverse,
    y,
    reserve,
    need_input,
    need_weights,
    backend,
):
    return (
        torch.empty_like(x) if need_input else x.new_empty(0),
        torch.empty_like(h0),
        torch.empty_like(c0),
        [torch.empty_like(w) if need_weights else w.new_empty(0) for w in weights],
    )


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, ids, batch_sizes, h0, c0, weights, ctx.has_bias, ctx.has_proj, ctx.reverse, _ = inputs
    y, _, _, reserve = output
    ctx.mark_non_differentiable(reserve)
    ctx.set_materialize_grads(False)
    ctx.backend = forced_backend()  # autograd may run backward on a thread that never saw it
    ctx.save_for_backward(x, ids, batch_sizes, h0, c0, y, reserve, *weights)


def _lstm_gradient(ctx: Any, dy: Any, dhn: Any, dcn: Any, _: Any) -> tuple[Any, ...]:
    x, ids, batch_sizes, h0, c0, y, reserve, *weights = ctx.saved_tensors
    need_x, _, _, need_h, need_c, need_weights = ctx.needs_input_grad[:6]
    any_weight = any(need_weights)
    if dy is None and dhn is None and dcn is None:
        return (*(None,) * 5, [None] * len(weights), *(None,) * 4)
    dx, dh0, dc0, dweights = _lstm_backward(
        dy,
        dhn,
        dcn,
        x,
        ids,
        batch_sizes,
        h0,
        c0,
        weights,
        ctx.has_bias,
        ctx.has_proj,
        ctx.reverse,
        y,
        reserve,
        need_x,
        any_weight,
        ctx.backend,
    )
    return (
        dx if need_x else None,
        None,
        None,
        dh0 if need_h else None,
        dc0 if need_c else None,
        [d if need else None for d, need in zip(dweights, need_weights, strict=True)],
        None,
        None,
        None,
        None,
    )


_lstm.register_autograd(_lstm_gradient, setup_context=_save_for_backward)


def _save_for_double_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    dy, dhn, dcn, x, ids, batch_sizes, h0, c0, weights = inputs[:9]
    ctx.has_bias, ctx.has_proj, ctx.reverse = inputs[9:12]
    ctx.save_for_backward(dy, dhn, dcn, x, ids, batch_sizes, h0, c0, *weights)


def _lstm_double_gradient(ctx: Any, ddx: Any, ddh0: Any, ddc0: Any, ddw: Any) -> tuple[Any, ...]:
    """Differentiates the reference's own backward: exact, at eager speed."""
    dy, dhn, dcn, x, ids, batch_sizes, h0, c0, *weights = ctx.saved_tensors
    with torch.enable_grad(), without_autocast(x.device):
        leaves = [
            None if v is None else v.detach().requires_grad_()
            for v in (dy, dhn, dcn, x, h0, c0, *weights)
        ]
        dy, dhn, dcn, x, h0, c0, *weights = leaves
        first = lstm_vjp(
            dy,
            dhn,
            dcn,
            x,
            ids,
            batch_sizes,
            h0,
            c0,
            weights,
            ctx.has_bias,
            ctx.has_proj,
            ctx.reverse,
            create_graph=True,
        )
        pairs = [
            (f, g)
            for f, g in zip(first, (ddx, ddh0, ddc0, *ddw), strict=True)
            if g is not None and g.shape == f.shape and f.requires_grad
        ]
        present = [v for v in leaves if v is not None]
        found = iter(
            torch.autograd.grad(
                [f for f, _ in pairs],
                present,
                [g for _, g in pairs],
                allow_unused=True,
                materialize_grads=True,
            )
        )
    second = [None if v is None else next(found) for v in leaves]
    g_dy, g_dhn, g_dcn, g_x, g_h0, g_c0, *g_w = second
    return (g_dy, g_dhn, g_dcn, g_x, None, None, g_h0, g_c0, g_w, *(None,) * 8)


_lstm_backward.register_autograd(_lstm_double_gradient, setup_context=_save_for_double_backward)


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
    save = torch.is_grad_enabled() and any(t.requires_grad for t in (x, h0, c0, *weights))
    y, hn, cn, _ = _lstm(
        x, ids, batch_sizes, h0, c0, weights, has_bias, has_proj, reverse, save
    )
    return y, hn, cn
