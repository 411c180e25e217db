"""A model for inference whose LSTMs keep their weights in fewer bits."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..ops import to_int8
from . import quantized
from .modules import LSTM, LSTMCell

__all__ = ["DTYPES", "quantize"]

M = TypeVar("M", bound=nn.Module)

DTYPES = ("int8", "bfloat16")
KINDS: dict[type[nn.Module], str] = {
    nn.LSTM: "LSTM", LSTM: "LSTM", nn.LSTMCell: "LSTMCell", LSTMCell: "LSTMCell"
}  # fmt: skip


def quantize(model: M, dtype: str = "int8") -> M:
    """A copy of a model, for inference, whose LSTMs have small weights.

    Each ``nn.LSTM``, ``nn.LSTMCell`` and LSTM of this package in it, and the head of a ``CharLM``,
    takes its weights in ``dtype``; all else is copied as it is. The copy is in evaluation mode and
    none of its parameters requires a gradient. ``model`` is left as it was.

    With ``"int8"`` a weight's row is 8-bit integers and a float32 scale, and each row of
    activations is quantized as it comes, step by step: a quarter of the bytes, which is what bounds
    a step. Sums are exact in 32 bits; biases, gates, cells and states are float32. With
    ``"bfloat16"`` weights are kept in 16 bits and computed with in float32: half the memory, no
    speed. Modules of subclasses are left alone, with a warning that names them.

    Args:
        model: any module, an LSTM itself included.
        dtype: ``"int8"`` or ``"bfloat16"``.

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: ``dtype`` is another; a module is parametrized; a weight is not finite; there is
            nothing to quantize.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: got {type(model).__name__}, expected a torch.nn.Module")
    if dtype not in DTYPES:
        raise ValueError(f"dtype: got {dtype!r}, expected one of {', '.join(DTYPES)}")
    with torch.inference_mode(False), torch.no_grad():
        return _quantize(copy.deepcopy(model), dtype)


def _quantize(model: M, dtype: str) -> M:
    left, done = [], 0
    modules = dict(model.named_modules())
    for name, module in modules.items():
        where = name or "the model itself"
        plain = parametrize.type_before_parametrizations(module)
        kind = KINDS.get(plain)
        if kind is not None:
            if parametrize.is_parametrized(module):
                raise ValueError(
                    f"model: {where} is parametrized; make that final with "
                    "torch.nn.utils.parametrize.remove_parametrizations before quantizing"
                )
            CONVERT[dtype, kind](module)
            done += 1
        elif isinstance(module, nn.LSTM | nn.LSTMCell | LSTM) and not _is_ours(module):
            left.append(f"{where} ({type(module).__name__})")
        for head in getattr(module, "quantized_linears", ()):
            linear = getattr(module, head)
            if type(linear) is nn.Linear:
                CONVERT[dtype, "Linear"](linear)
                done += 1
    if left:
        warnings.warn(
            f"quantize: left alone {', '.join(left)}: of a subclass, which may compute something "
            "else; make it an nn.LSTM first",
            stacklevel=4,
        )
    if not done:
        raise ValueError(
            f"model: got {type(model).__name__} without an LSTM that can be quantized, expected an "
            "nn.LSTM, an nn.LSTMCell or one of this package in it"
        )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.eval()


def _is_ours(module: nn.Module) -> bool:
    return type(module).__module__ == quantized.__name__


def _take(module: nn.Module) -> dict[str, Tensor]:
    """The module's parameters, which it loses."""
    found = {k: v.detach() for k, v in module._parameters.items() if v is not None}
    module._parameters.clear()
    return found


def _add(module: nn.Module, name: str, weight: Tensor) -> None:
    """Buffers ``weight_NAME`` in int8 and ``scale_NAME``."""
    q, scale = to_int8(weight)
    module.register_buffer(f"weight{name}", q)
    module.register_buffer(f"scale{name}", scale)


def _int8_lstm(module: nn.Module) -> None:
    old = _take(module)
    for key in ("_flat_weights", "_flat_weights_names", "_flat_weight_refs", "_all_weights"):
        module.__dict__.pop(key, None)
    module.__class__ = quantized.Int8LSTM
    names = [key[len("weight_ih") :] for key in old if key.startswith("weight_ih")]
    for suffix in names:
        _add(module, f"_ih{suffix}", old[f"weight_ih{suffix}"])
        _add(module, f"_hh{suffix}", old[f"weight_hh{suffix}"])
        if module.bias:
            both = old[f"bias_ih{suffix}"].float() + old[f"bias_hh{suffix}"].float()
            module.register_buffer(f"bias{suffix}", both)
        if module.proj_size:
            _add(module, f"_hr{suffix}", old[f"weight_hr{suffix}"])


def _int8_cell(module: nn.Module) -> None:
    old = _take(module)
    module.__class__ = quantized.Int8LSTMCell
    _add(module, "_ih", old["weight_ih"])
    _add(module, "_hh", old["weight_hh"])
    if module.bias:
        module.register_buffer("bias_sum", old["bias_ih"].float() + old["bias_hh"].float())


def _int8_linear(module: nn.Module) -> None:
    old = _take(module)
    module.__class__ = quantized.Int8Linear
    _add(module, "", old["weight"])
    module.register_buffer("bias", old["bias"].float() if "bias" in old else None)


def _bfloat16(cls: type[nn.Module]) -> Callable[[nn.Module], None]:
    def convert(module: nn.Module) -> None:
        names = list(module._parameters)
        old = _take(module)
        for name in names:
            value = old.get(name)
            if value is None:  # no bias, which callers look for
                module.register_buffer(name, None)
                continue
            narrow = value.float() if name.startswith("bias") else value.to(torch.bfloat16)
            module.register_buffer(name, narrow.clone())
        module.__class__ = cls
        if cls is quantized.Bfloat16LSTM:
            of_lstm: Any = module
            of_lstm._init_flat_weights()

    return convert


CONVERT: dict[tuple[str, str], Callable[[nn.Module], None]] = {
    ("int8", "LSTM"): _int8_lstm,
    ("int8", "LSTMCell"): _int8_cell,
    ("int8", "Linear"): _int8_linear,
    ("bfloat16", "LSTM"): _bfloat16(quantized.Bfloat16LSTM),
    ("bfloat16", "LSTMCell"): _bfloat16(quantized.Bfloat16LSTMCell),
    ("bfloat16", "Linear"): _bfloat16(quantized.Bfloat16Linear),
}
