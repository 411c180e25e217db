"""The short way of a module to few steps, and to a kernel with 8-bit weights: at 128 units, what
Python does around the kernel takes as long as the kernel. What is no plain call goes the long way,
which also has the errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..ops import STEP_ROWS, lstm_int8_plainly, registered_weights, unwatched_steps
from ..ops.registration import nothing_watches


def weights_of(lstm: nn.RNNBase) -> list[Tensor]:
    """The weights by layer and direction, as ``lstm.all_weights`` has them.

    An attribute of a module that is a parameter is found last of all, after 1 us. So parameters are
    taken from where they are registered, unless something else could answer to their names.
    """
    return _unwatched_weights(lstm) if nothing_watches() else _by_attribute(lstm)


def _by_attribute(lstm: nn.RNNBase) -> list[Tensor]:
    return [weight for layer in lstm.all_weights for weight in layer]


def _unwatched_weights(lstm: nn.RNNBase) -> list[Tensor]:
    if type(lstm).__base__ is nn.RNNBase:
        found = registered_weights(lstm.__dict__)
        if found is not None:  # else pruned, wrapped or hidden
            return found
    return _by_attribute(lstm)


def few_steps(lstm: Any, input: Any, hx: Any) -> tuple[Tensor, tuple[Tensor, Tensor]] | None:
    """As ``LSTM.forward``, where :func:`charlm_fast.ops.lstm_steps` serves; None elsewhere.

    Args:
        lstm: a ``charlm_fast.LSTM``, or what shares its ``forward``, which goes the long way.
        input: whatever the module was given; (T, B, I) or (B, T, I) are for this function.
        hx: None or the two states.
    """
    if type(input) is not Tensor or torch.is_grad_enabled() or not nothing_watches():
        return None
    if not isinstance(lstm, nn.RNNBase) or not input.is_cpu or input.dim() != 3:
        return None
    if input.shape[0] * input.shape[1] > STEP_ROWS:  # before states and weights are looked up
        return None
    return _padded(lstm, input, hx, unwatched_steps, _unwatched_weights)


def int8_at_once(lstm: Any, input: Any, hx: Any) -> tuple[Tensor, tuple[Tensor, Tensor]] | None:
    """As ``Int8LSTM.forward`` of plain padded input in one direction; None elsewhere.

    Args:
        lstm: an ``Int8LSTM``.
        input: whatever the module was given; (T, B, I) or (B, T, I) are for this function.
        hx: None or the two states.
    """
    if type(input) is not Tensor or not nothing_watches() or input.dim() != 3:
        return None
    return _padded(lstm, input, hx, lstm_int8_plainly, _buffers_of)


def _buffers_of(lstm: Any) -> tuple[Tensor, ...]:
    return tuple(lstm._buffers.values())


def _padded(
    lstm: Any,
    input: Tensor,
    hx: Any,
    operation: Callable[..., tuple[Tensor, Tensor, Tensor] | None],
    weights: Callable[[Any], Sequence[Tensor]],
) -> tuple[Tensor, tuple[Tensor, Tensor]] | None:
    """``operation`` of input in three dimensions, in its layout and from zero states if hx is None.

    None if it returns that, or where the module has more than one plain direction.
    """
    if lstm.bidirectional or lstm.proj_size or (lstm.training and lstm.dropout):
        return None
    batch_first = lstm.batch_first
    if batch_first:
        input = input.transpose(0, 1)
    if type(hx) is tuple and len(hx) == 2:
        h0, c0 = hx
    elif hx is None:
        h0 = c0 = input.new_zeros((lstm.num_layers, input.shape[1], lstm.hidden_size))
    else:
        return None
    found = operation(input, h0, c0, weights(lstm), lstm.bias)
    if found is None:
        return None
    y, h, c = found
    return (y.transpose(0, 1) if batch_first else y), (h, c)
