"""The dtypes that an LSTM computes in and returns: autocast as nn.LSTM applies it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..ops.dispatch import lstm_keeps_bfloat16
from .transforms import forced


def cast(
    input: Tensor, h0: Tensor, c0: Tensor, weights: Sequence[Tensor], wide: bool, has_proj: bool
) -> tuple[Tensor, Tensor, Tensor, Sequence[Tensor], torch.dtype, torch.dtype]:
    """The tensors to compute with and the dtypes of the outputs (y and h; c): autocast applied.

    ``wide``: torch runs this case as separate operations, of which autocast lowers the matrix
    products only, so the cell state keeps its dtype and passes it on to an unprojected h.
    """
    device, dtype = input.device.type, input.dtype
    if not dtype.is_floating_point or dtype == torch.float64 or device == "meta":
        return input, h0, c0, weights, dtype, dtype
    y_dtype = c_dtype = dtype
    if torch.is_autocast_enabled(device):
        dtype = y_dtype = c_dtype = torch.get_autocast_dtype(device)
        if wide:
            c_dtype = torch.promote_types(dtype, c0.dtype)
            y_dtype = dtype if has_proj else c_dtype
    elif device != "cpu" or dtype == torch.float32 or forced() != "auto":
        return input, h0, c0, weights, dtype, dtype
    elif any(t.dtype != dtype for t in (h0, c0, *weights)):
        return input, h0, c0, weights, dtype, dtype  # left as it is, for the error it makes
    if device == "cpu" and not (dtype == torch.bfloat16 and lstm_keeps_bfloat16()):
        dtype = torch.float32  # which the kernels have; the reference's loop is far slower
    weights = [w.to(dtype) for w in weights]
    return input.to(dtype), h0.to(dtype), c0.to(dtype), weights, y_dtype, c_dtype
