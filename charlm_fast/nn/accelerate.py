"""Gives the LSTMs of a model that exists this package's kernels."""

from __future__ import annotations

import warnings
from typing import TypeVar

from torch import nn
from torch.nn.utils import parametrize

from .modules import LSTM, LSTMCell

__all__ = ["accelerate"]

M = TypeVar("M", bound=nn.Module)

OURS: dict[type[nn.Module], type[nn.Module]] = {nn.LSTM: LSTM, nn.LSTMCell: LSTMCell}


def accelerate(model: M) -> M:
    """Make each ``nn.LSTM`` and ``nn.LSTMCell`` in a model one of this package, in place.

    The modules stay the objects that they are and change their class: parameters, and with them
    optimizers, devices, dtypes, hooks, parametrizations, training flags and whatever else refers to
    a module stay valid. ``isinstance(module, nn.LSTM)`` is false afterwards, for ``torch.compile``
    refuses those; test for ``nn.RNNBase``.

    Instances of subclasses are left alone, with a warning that names them: they may compute
    something else.

    Args:
        model: any module, an ``nn.LSTM`` itself included.

    Returns:
        ``model``.

    Raises:
        TypeError: ``model`` is not a module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: got {type(model).__name__}, expected a torch.nn.Module")
    left = []
    for name, module in model.named_modules():
        if isinstance(module, (LSTM, LSTMCell)):
            continue
        for theirs, ours in OURS.items():
            if parametrize.type_before_parametrizations(module) is theirs:
                _change_class(module, ours)
            elif isinstance(module, theirs):
                left.append(f"{name or 'the model itself'} ({type(module).__name__})")
    if left:
        warnings.warn(
            f"accelerate: left alone {', '.join(left)}: of a subclass, which may compute something "
            "else; derive it from charlm_fast.LSTM or charlm_fast.LSTMCell instead",
            stacklevel=2,
        )
    return model


def _change_class(module: nn.Module, ours: type[nn.Module]) -> None:
    cls: type[nn.Module] = type(module)
    if parametrize.is_parametrized(module):
        # A class of this one module, between it and nn.LSTM, has the parametrized tensors as
        # properties.
        own = {k: v for k, v in vars(cls).items() if k not in ("__dict__", "__weakref__")}
        ours = type(f"Parametrized{ours.__name__}", (ours,), own)
    module.__class__ = ours
