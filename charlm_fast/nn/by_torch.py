"""LSTMs that are left to torch's own, and how it is called."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..ops import STEP_ROWS
from ..ops.dispatch import cpu_loses, left_to_torch
from ..ops.registration import PLAIN, wants_gradient

CHECKED_ON_CPU = (torch.float32, torch.float64)


def is_left(input: Tensor, h0: Tensor, c0: Tensor, weights: Sequence[Tensor], padded: bool) -> bool:
    """Whether ``auto`` leaves this call to torch's LSTM: on a GPU whose kernels were not checked,
    and where a check found them wrong or slower.

    A compiled program and subclasses of tensors keep this package's operation, which chooses when
    it runs.

    Args:
        padded: not a packed batch, and in one direction.
    """
    if torch.compiler.is_compiling() or (input.is_cpu and not cpu_loses()):
        return False
    device = input.device
    if device.type == "cpu":
        if torch.is_autocast_enabled("cpu") or input.dtype not in CHECKED_ON_CPU:
            return False
    elif device.type != "cuda":
        return False
    if type(input) not in PLAIN or not input.numel():
        return False
    dtype = input.dtype
    if torch.is_autocast_enabled(device.type) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device.type)
    gradient = wants_gradient(input, h0, c0, *weights)
    batch, hidden = c0.shape[1], c0.shape[2]
    few = padded and not gradient and device.type == "cpu" and input.shape[0] * batch <= STEP_ROWS
    operation = "lstm_steps" if few else "lstm"
    return left_to_torch(operation, device, dtype, hidden, batch, gradient)


def lstm(
    input: Tensor,
    h0: Tensor,
    c0: Tensor,
    weights: Sequence[Tensor],
    has_bias: bool,
    num_layers: int,
    dropout: float,
    training: bool,
    bidirectional: bool,
    batch_sizes: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`charlm_fast.functional.lstm` by torch, time first.

    In evaluation too its gradient can be asked for, which cuDNN keeps for training alone.
    """
    dropout = dropout if training else 0.0
    training = training or (input.is_cuda and wants_gradient(input, h0, c0, *weights))
    options = (has_bias, num_layers, dropout, training, bidirectional)
    if batch_sizes is not None:
        return torch.lstm(input, batch_sizes, (h0, c0), list(weights), *options)
    y, h, c = torch.lstm(input, (h0, c0), list(weights), *options, False)
    return y, h, c
