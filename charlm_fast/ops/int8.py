"""The LSTM and the linear layer with 8-bit weights: for inference."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from charlm_fast.kernels.native import cpu

from .checks import check_batch_sizes, without_autocast
from .dispatch import chooses_cpu, select
from .registration import PLAIN_TYPES, below_autograd, nothing_watches, register, wants_gradient

F32 = torch.float32
_where, _HERE = attrgetter("is_cpu", "layout"), (True, torch.strided)


def to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (N, K) as int8 (N, K) and one float32 scale for each row (N,).

    ``weight`` is about ``scale[:, None] * q``, to half a scale; a scale is the largest magnitude of
    its row divided by 127.

    Raises:
        ValueError: a value is infinite or NaN.
    """
    weight = weight.detach().float()
    most = weight.abs().amax(1) if weight.numel() else weight.new_zeros(weight.shape[0])
    if not weight.is_meta and not bool(most.isfinite().all()):
        raise ValueError("weight: got infinity or NaN, which no scale fits; look at the training")
    scale = most / 127
    q = weight / torch.where(scale > 0, scale, 1.0)[:, None]
    return q.round().clamp(-127, 127).to(torch.int8), scale


def _run_lstm(
    x: Tensor,
    batch_sizes: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    weights: Sequence[Tensor],
    has_bias: bool,
    has_proj: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    module = select("lstm_int8", x.device, x.dtype)
    with without_autocast(x.device):
        return module.lstm_int8(x, batch_sizes, h0, c0, weights, has_bias, has_proj, reverse)


def _fake_lstm(x, batch_sizes, h0, c0, *rest):  # type: ignore[no-untyped-def]
    h, c = (torch.empty_like(v, memory_format=torch.contiguous_format) for v in (h0, c0))
    return x.new_empty(*x.shape[:-1], h0.shape[2]), h, c


def _refuse_gradient(*tensors: Tensor) -> None:
    if wants_gradient(*tensors):
        raise RuntimeError(
            "int8: got an input that requires a gradient, expected a call for inference, as under "
            "torch.no_grad(); train the model that was quantized instead"
        )


def _autograd_lstm(*args: Any) -> tuple[Tensor, ...]:
    x, _, h0, c0, *_ = args
    _refuse_gradient(x, h0, c0)
    return below_autograd(_lstm, *args)


_lstm = register(
    "lstm_int8(Tensor x, Tensor? batch_sizes, Tensor h0, Tensor c0, Tensor[] weights, "
    "bool has_bias, bool has_proj, bool reverse) -> (Tensor, Tensor, Tensor)",
    _run_lstm,
    _fake_lstm,
    _autograd_lstm,
)


def _run_linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    module = select("linear_int8", x.device, x.dtype)
    with without_autocast(x.device):
        return module.linear_int8(x, weight, scale, bias)


def _fake_linear(x, weight, scale, bias):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape[0], weight.shape[0])


def _autograd_linear(x: Tensor, *args: Any) -> Tensor:
    _refuse_gradient(x)
    return below_autograd(_linear, x, *args)


_linear = register(
    "linear_int8(Tensor x, Tensor weight, Tensor scale, Tensor? bias) -> Tensor",
    _run_linear,
    _fake_linear,
    _autograd_linear,
)


def _direct(*tensors: Tensor) -> bool:
    """Whether the kernel may take these past torch's dispatcher; by maps, as in ops/steps.py."""
    if not nothing_watches() or not PLAIN_TYPES.issuperset(map(type, tensors)):
        return False
    for where in map(_where, tensors):
        if where != _HERE:
            return False
    return (
        not any(map(Tensor.is_neg, tensors))
        and all(map(Tensor.data_ptr, tensors))  # else empty, or zeros that nobody has written down
        and chooses_cpu()
        and forward_ad._current_level < 0
    )


def _check_dtype(name: str, tensor: Tensor, like: Tensor) -> None:
    if tensor.dtype is not F32:
        raise ValueError(
            f"{name}: got {tensor.dtype}, expected torch.float32; convert with .float()"
        )
    if tensor.device != like.device:
        raise RuntimeError(
            f"{name}: got a tensor on {tensor.device}, expected {like.device} like the weights"
        )


def lstm_int8(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    weights: Sequence[Tensor],
    *,
    batch_sizes: Tensor | None = None,
    has_bias: bool = True,
    has_proj: bool = False,
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """One direction of an LSTM with weights in int8, activations to int8 on the fly; for inference.

    T steps, B rows (N over all steps), I input columns, H units, L layers, R = H or, with
    projections, their size. Each row of each step is quantized by itself: q = round(x / s) with
    s = max |x| / 127. A product is bias + s scale (q . w), the sum in 32 bits and exact; gates,
    cells and states are float32. A row that holds infinity or NaN gives NaN.

    Args:
        x: (T, B, I), or (N, I) with ``batch_sizes``; float32.
        h0: (L, B, R).
        c0: (L, B, H).
        weights: by layer ``w_ih`` (4H, I or R) in int8 and its scales (4H,), ``w_hh`` (4H, R) and
            its scales, the bias (4H,) if ``has_bias``, then ``w_hr`` (R, H) and its scales (R,) if
            ``has_proj``: see :func:`to_int8`. The C++ kernels pack them once and keep that as long
            as the first lives; changes are seen by torch's counters of versions, so not those made
            through ``.data``.
        batch_sizes: (T,) int64 on the CPU, as of a PackedSequence.

    Returns:
        y (T, B, R) or (N, R), h_n (L, B, R), c_n (L, B, H).

    Raises:
        RuntimeError: a shape or a device does not fit, or a gradient is asked for.
        ValueError: x or a state is not float32.
    """
    if h0.dim() != 3 or c0.dim() != 3 or h0.shape[:2] != c0.shape[:2]:
        raise RuntimeError(
            f"h0 and c0 must be (layers, batch, columns), got {list(h0.shape)} and {list(c0.shape)}"
        )
    first = weights[0]
    for name, tensor in (("x", x), ("h0", h0), ("c0", c0)):
        _check_dtype(name, tensor, first)
    if x.dim() != (3 if batch_sizes is None else 2) or x.shape[-1] != first.shape[1]:
        raise RuntimeError(
            f"x: got shape {list(x.shape)}, expected {first.shape[1]} columns in "
            f"{'3 dimensions' if batch_sizes is None else '2 dimensions'}"
        )
    if batch_sizes is not None:
        check_batch_sizes(batch_sizes, x.shape[0], h0.shape[1])
    elif x.shape[1] != h0.shape[1]:
        raise RuntimeError(f"h0 must have the batch of x: expected {x.shape[1]}, got {h0.shape[1]}")
    _refuse_gradient(x, h0, c0)
    if _direct(x, h0, c0):
        return cpu.lstm_int8(x, batch_sizes, h0, c0, weights, has_bias, has_proj, reverse)
    return _lstm(x, batch_sizes, h0, c0, list(weights), has_bias, has_proj, reverse)


def lstm_int8_plainly(
    x: Tensor, h0: Any, c0: Any, weights: Sequence[Tensor], has_bias: bool
) -> tuple[Tensor, Tensor, Tensor] | None:
    """As :func:`lstm_int8` for a padded input and no projections, with few checks: a step of 128
    units takes the kernel 5 us. None where this is no plain call on the CPU, or a wrong one."""
    if not _direct(x, h0, c0) or not (x.dtype is h0.dtype is c0.dtype is F32):
        return None
    shape, state = x.shape, h0.shape
    if len(shape) != 3 or len(state) != 3 or c0.shape != state or state[1] != shape[1]:
        return None
    first = weights[0]
    if not shape.numel() or first.shape != (4 * state[2], shape[2]) or not first.is_cpu:
        return None
    if len(weights) != state[0] * (4 + has_bias) or wants_gradient(x, h0, c0):
        return None
    return cpu.lstm_int8(x, None, h0, c0, weights, has_bias, False, False)


def linear_int8(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ (scale * weight)^T + bias`` with x to int8 on the fly, as :func:`lstm_int8`.

    Args:
        x: (N, K) float32.
        weight: (M, K) int8.
        scale, bias: (M,) float32.

    Returns:
        (N, M).
    """
    _check_dtype("x", x, weight)
    if x.dim() != 2 or x.shape[1] != weight.shape[1]:
        raise RuntimeError(f"x: got shape {list(x.shape)}, expected (N, {weight.shape[1]})")
    _refuse_gradient(x)
    if _direct(x):
        return cpu.linear_int8(x, weight, scale, bias)
    return _linear(x, weight, scale, bias)
