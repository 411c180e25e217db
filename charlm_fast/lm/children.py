"""Whether a language model's three modules are what they look like.

Then one operation may take the place of all three. Otherwise somebody watches, wraps or replaced
one of them, and they have to be called.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.nn import Embedding, Linear
from torch.nn.modules import module

from ..nn.export import exporting
from ..nn.modules import LSTM
from ..ops.registration import PLAIN_TYPES

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
EVERYWHERE = tuple(getattr(module, f"_global{name}") for name in HOOKS)
_compiling = torch.compiler.is_compiling
_transforms, _tracing = torch._C._are_functorch_transforms_active, torch._C._is_tracing


class Children:
    """What was seen of a model's modules, so that the next look takes less than a microsecond."""

    __slots__ = (
        "bias", "decoder", "embedding", "encoder", "head", "hooks", "lstm", "modules", "own",
        "w_ih",
    )  # fmt: skip

    def __init__(self) -> None:
        self.encoder = self.lstm = self.decoder = self.modules = None

    def __reduce__(self) -> Any:
        return Children, ()  # a copy of the model has modules of its own

    def are_plain(self, model: Any) -> bool:
        """Whether they are an Embedding, our LSTM of the model's layers and units, and a Linear as
        torch makes them, with parameters of no subclass and no hook on any, and no transform, trace
        or export is at work that knows torch's operations alone."""
        if _compiling():
            return not exporting() and _as_made(model)
        if _transforms() or forward_ad._current_level >= 0 or _tracing():
            return False
        modules = self.modules
        if modules is not None:
            encoder, lstm, decoder = modules["encoder"], modules["lstm"], modules["decoder"]
            if (
                encoder is self.encoder
                and lstm is self.lstm
                and decoder is self.decoder
                and type(encoder) is Embedding
                and type(lstm) is LSTM
                and type(decoder) is Linear
            ):
                e, l, d, of_e, of_l, of_d = self.own
                if (
                    of_e["weight"] is self.embedding
                    and of_l["weight_ih_l0"] is self.w_ih
                    and of_d["weight"] is self.head
                    and of_d["bias"] is self.bias
                    and e["max_norm"] is e["padding_idx"] is None
                    and not e["scale_grad_by_freq"]
                    and not any(self.hooks)
                ):
                    return not ("forward" in e or "forward" in l or "forward" in d)
        return self._look(model)

    def _look(self, model: Any) -> bool:
        self.modules = None
        if not _as_made(model):
            return False
        encoder, lstm, decoder = model.encoder, model.lstm, model.decoder
        own = encoder.__dict__, lstm.__dict__, decoder.__dict__
        parameters = [module["_parameters"] for module in own]
        types = set(map(type, chain.from_iterable(p.values() for p in parameters)))
        if (
            len(parameters[1]) != 4 * model.num_layers
            or not types <= PLAIN_TYPES
            or any("forward" in module for module in own)
        ):
            return False
        self.own = (*own, *parameters)
        self.hooks = EVERYWHERE + tuple(module[name] for module in own for name in HOOKS)
        self.modules = model._modules
        self.encoder, self.lstm, self.decoder = encoder, lstm, decoder
        self.embedding, self.w_ih = encoder.weight, lstm.weight_ih_l0
        self.head, self.bias = decoder.weight, decoder.bias
        return True


def _as_made(model: Any) -> bool:
    """All that can be seen without the parameters; torch.compile follows it."""
    encoder, lstm, decoder = model.encoder, model.lstm, model.decoder
    if type(encoder) is not Embedding or type(lstm) is not LSTM or type(decoder) is not Linear:
        return False
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
        and lstm.num_layers == model.num_layers
        and lstm.input_size == lstm.hidden_size == model.hidden_size
    )
