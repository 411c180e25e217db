"""Whether a language model's three modules are what they look like.

Then one operation may take the place of all three. Otherwise somebody watches, wraps or replaced
one of them, and they have to be called.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.modules import module

from ..nn.export import exporting
from ..nn.modules import LSTM
from ..ops.registration import PLAIN

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
PARAMETERS = frozenset(PLAIN)
EVERYWHERE = tuple(getattr(module, f"_global{name}") for name in HOOKS)
_compiling = torch.compiler.is_compiling
_transforms, _tracing = torch._C._are_functorch_transforms_active, torch._C._get_tracing_state


def transformed() -> bool:
    """Whether a transform, a trace or an export is at work that knows torch's operations alone."""
    if _compiling():
        return exporting()
    return _transforms() or forward_ad._current_level >= 0 or _tracing() is not None


class Children:
    """What was seen of a model's modules, so that the next look takes less than a microsecond."""

    __slots__ = ("bias", "decoder", "embedding", "encoder", "head", "hooks", "lstm", "owns", "w_ih")

    def __init__(self) -> None:
        self.encoder = self.lstm = self.decoder = None

    def __reduce__(self) -> Any:
        return Children, ()  # a copy of the model has modules of its own

    def are_plain(self, own: dict[str, Any], layers: int, units: int) -> bool:
        """Whether they are an Embedding, our LSTM of so many layers and units, and a Linear as
        torch makes them, with parameters of no subclass and no hook on any.

        Args:
            own: the model's ``_modules``.
        """
        encoder, lstm, decoder = own["encoder"], own["lstm"], own["decoder"]
        if (
            type(encoder) is not nn.Embedding
            or type(lstm) is not LSTM
            or type(decoder) is not nn.Linear
        ):
            return False
        if _compiling():
            return _as_made(encoder, lstm, decoder, layers, units)
        if encoder is self.encoder and lstm is self.lstm and decoder is self.decoder:
            e, l, d = self.owns
            if (
                e["_parameters"]["weight"] is self.embedding
                and l["_parameters"]["weight_ih_l0"] is self.w_ih
                and d["_parameters"]["weight"] is self.head
                and d["_parameters"]["bias"] is self.bias
                and e["max_norm"] is None
                and e["padding_idx"] is None
                and not e["scale_grad_by_freq"]
                and not any(self.hooks)
            ):
                return "forward" not in e and "forward" not in l and "forward" not in d
        self.encoder = None
        if not _as_made(encoder, lstm, decoder, layers, units):
            return False
        self.owns = e, l, d = encoder.__dict__, lstm.__dict__, decoder.__dict__
        if len(l["_parameters"]) != 4 * layers or not PARAMETERS.issuperset(
            map(type, chain.from_iterable(own["_parameters"].values() for own in self.owns))
        ):
            return False
        self.hooks = EVERYWHERE + tuple(own[name] for own in self.owns for name in HOOKS)
        self.encoder, self.lstm, self.decoder = encoder, lstm, decoder
        self.embedding, self.w_ih = e["_parameters"]["weight"], l["_parameters"]["weight_ih_l0"]
        self.head, self.bias = d["_parameters"]["weight"], d["_parameters"]["bias"]
        return True


def _as_made(
    encoder: nn.Embedding, lstm: LSTM, decoder: nn.Linear, layers: int, units: int
) -> bool:
    """All that can be seen without the parameters; torch.compile follows it."""
    for hooks in EVERYWHERE:
        if len(hooks):
            return False
    for child in (encoder, lstm, decoder):
        if (
            len(child._forward_hooks)
            or len(child._forward_pre_hooks)
            or len(child._backward_hooks)
            or len(child._backward_pre_hooks)
        ):
            return False
    return (
        encoder.max_norm is None
        and encoder.padding_idx is None
        and not (encoder.scale_grad_by_freq or encoder.sparse)
        and not (lstm.bidirectional or lstm.batch_first or lstm.proj_size)
        and lstm.bias
        and decoder.bias is not None
        and lstm.num_layers == layers
        and lstm.hidden_size == units
        and lstm.input_size == units
    )
