"""Which of torch's switches says how exact float32 is.

Our kernels of a gradient go by what the switches were in its forward pass; products that torch
makes there go by what they are when it makes them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

import torch

T = TypeVar("T")


class Rounding(NamedTuple):
    """Whether float32 may be rounded to TF32 on a GPU."""

    lstm: bool  # in the steps of an LSTM, where cuDNN's may
    products: bool  # in products of matrices, where torch's may


_of_forward: ContextVar[Rounding | None] = ContextVar("charlm_fast_rounding", default=None)


def rounding(device: torch.device) -> Rounding | None:
    """What torch's switches say now, for the gradient of a forward pass; None where none counts."""
    if device.type != "cuda":
        return None
    return Rounding(_lstm_rounds(), products_take_tf32())


def by_rounding(chosen: Rounding | None, function: Callable[..., T], *arguments: Any) -> T:
    """function(*arguments) as if torch's switches were as ``chosen``; None: as they are."""
    if chosen is None:
        return function(*arguments)
    token = _of_forward.set(chosen)
    try:
        return function(*arguments)
    finally:
        _of_forward.reset(token)


def takes_tf32(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether an LSTM on this device may round float32 to TF32 in its steps.

    It may where cuDNN's may: by ``torch.backends.cudnn.rnn.fp32_precision``, which is ``"tf32"``
    unless somebody changes it, and which ``torch.backends.cudnn.allow_tf32`` sets as well. Products
    over all steps are torch's, and go by ``torch.backends.cuda.matmul``.
    """
    return device.type == "cuda" and dtype == torch.float32 and _lstm_rounds()


def _lstm_rounds() -> bool:
    if (chosen := _of_forward.get()) is not None:
        return chosen.lstm
    return bool(torch.backends.cudnn.rnn.fp32_precision == "tf32")  # type: ignore[attr-defined]


def products_take_tf32() -> bool:
    """Whether kernels may round float32 to TF32 where torch's products may."""
    if (chosen := _of_forward.get()) is not None:
        return chosen.products
    return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")
