"""A language model whose LSTM and head were quantized: what it is, and its texts in one call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from .. import ops
from ..nn.quantized import Bfloat16LSTM, Int8Linear, Int8LSTM
from .children import EVERYWHERE, HOOKS


def quantization(model: Any) -> str | None:
    """``"int8"`` or ``"bfloat16"``, as ``charlm_fast.quantize`` made it, or None."""
    kinds = {Int8LSTM: "int8", Bfloat16LSTM: "bfloat16"}
    return kinds.get(type(model.lstm))


def writer(model: Any) -> Callable[..., Any] | None:
    """As :func:`charlm_fast.ops.generate` with the model's weights, in 8 bits.

    None where its modules are not those that were quantized, or somebody watches or wraps them, or
    the kernels do not serve: then they are to be called one by one.
    """
    encoder, lstm, head = model.encoder, model.lstm, model.decoder
    if (type(encoder), type(lstm), type(head)) != (nn.Embedding, Int8LSTM, Int8Linear):
        return None
    if encoder.max_norm is not None or encoder.padding_idx is not None:
        return None
    if lstm.bidirectional or lstm.batch_first or lstm.proj_size or not lstm.bias:
        return None
    own = [getattr(module, name) for module in (encoder, lstm, head) for name in HOOKS]
    if any(EVERYWHERE) or any(own) or any("forward" in m.__dict__ for m in (encoder, lstm, head)):
        return None
    weights = tuple(lstm._buffers.values())
    parts = (head.weight, head.scale, head.bias)
    if head.bias is None or not ops.writes_int8(encoder.weight, *weights, *parts):
        return None
    return partial(ops.generate_int8, encoder.weight, weights, parts)
