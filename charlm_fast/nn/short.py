"""The short way of a module to its kernel: at 128 units, what Python does around a step takes as
long as the step, and around a sequence as long as 15 steps. What is no plain call goes the long
way, which also has the errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..ops import lstm_int8_plainly, module_calls, registered_weights
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
            return list(found)
    return _by_attribute(lstm)


def plain_call(lstm: Any, input: Any, hx: Any) -> tuple[Tensor, tuple[Tensor, Tensor]] | None:
    """As ``LSTM.forward`` without gradients and of plain tensors on the CPU; None elsewhere.

    All questions are asked in C (``csrc/python/module_call.cpp``).

    Args:
        lstm: a ``charlm_fast.LSTM``, or what shares its ``forward``, which goes the long way.
        input: whatever the module was given; (T, B, I) or (B, T, I) are for this function.
        hx: None or the two states.
    """
    if _traced():  # by torch.compile, which cannot look into C
        return None
    return (_in_c or _find_in_c())(lstm, input, hx)


_traced = torch.compiler.is_dynamo_compiling
_in_c: Callable[[Any, Any, Any], Any] | None = None


def _find_in_c() -> Callable[[Any, Any, Any], Any]:
    """The function behind :func:`plain_call`, once the kernels are loaded."""
    global _in_c
    _in_c = module_calls() or _nothing
    return _in_c


def _nothing(lstm: Any, input: Any, hx: Any) -> None:
    """Without kernels all goes the long way."""


def int8_at_once(lstm: Any, input: Any, hx: Any) -> tuple[Tensor, tuple[Tensor, Tensor]] | None:
    """As ``Int8LSTM.forward`` of plain padded input in one direction; None elsewhere.

    Args:
        lstm: an ``Int8LSTM``.
        input: whatever the module was given; (T, B, I) or (B, T, I) are for this function.
        hx: None or the two states.
    """
    if type(input) is not Tensor or not nothing_watches() or input.dim() != 3:
        return None
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
    found = lstm_int8_plainly(input, h0, c0, tuple(lstm._buffers.values()), lstm.bias)
    if found is None:
        return None
    y, h, c = found
    return (y.transpose(0, 1) if batch_first else y), (h, c)
