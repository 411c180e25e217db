"""The LSTM, the linear layer and texts with 8-bit weights, past torch's dispatcher.

Weights are packed for the kernels once and kept as long as the first of them lives: what is kept is
used again while all of them are where they were and as they were, by torch's count of changes.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from charlm_fast import _extension

_changes = attrgetter("_version")


class Kept:
    """Packed weights, by the first of the tensors that they were packed from."""

    def __init__(self) -> None:
        self.entries: dict[int, tuple[Any, list[int], Tensor]] = {}

    def get(self, weights: Sequence[Tensor], pack: Callable[[], Tensor]) -> Tensor:
        first = weights[0]
        name = id(first)
        try:
            state = [*map(_changes, weights)]
        except RuntimeError:  # a tensor of inference mode, which counts no changes
            return pack()
        state += map(Tensor.data_ptr, weights)
        state.append(_module().int8_layout())
        entry = self.entries.get(name)
        if entry is not None and entry[0]() is first and entry[1] == state:
            return entry[2]
        packed = pack()
        forget = functools.partial(self.entries.pop, name, None)
        self.entries[name] = (weakref.ref(first, lambda _: forget()), state, packed)
        return packed


_kept = Kept()


@functools.cache
def _module() -> Any:
    return _extension.native_module()


def _packed_lstm(weights: Sequence[Tensor], has_bias: bool, has_proj: bool) -> Tensor:
    def pack() -> Tensor:
        parts = [w.contiguous() for w in weights]
        return torch.ops.charlm_fast_native.int8_pack(parts, has_bias, has_proj)

    return _kept.get(weights, pack)


def lstm_int8(
    x: Tensor,
    batch_sizes: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    weights: Sequence[Tensor],
    has_bias: bool,
    has_proj: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    L, B, R = h0.shape
    if not x.is_contiguous():
        x = x.contiguous()
    if not h0.is_contiguous():
        h0 = h0.contiguous()
    if not c0.is_contiguous():
        c0 = c0.contiguous()
    if batch_sizes is None:
        T, _, I = x.shape
        y = torch.empty_like(x) if I == R else x.new_empty(T, B, R)
        rows, sizes = T * B, 0
    else:
        (rows, I), T = x.shape, batch_sizes.shape[0]
        batch_sizes = batch_sizes.contiguous()
        y = x.new_empty(rows, R)
        sizes = batch_sizes.data_ptr()
    hn, cn = torch.empty_like(h0), torch.empty_like(c0)
    packed = _packed_lstm(weights, has_bias, has_proj)
    _module().lstm_int8(
        packed.data_ptr(), L, T, B, rows, I, c0.shape[2], R, has_proj, reverse, sizes,
        x.data_ptr(), h0.data_ptr(), c0.data_ptr(), y.data_ptr(), hn.data_ptr(), cn.data_ptr(),
    )  # fmt: skip
    return y, hn, cn


def _packed_linear(weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    parts = (weight, scale) if bias is None else (weight, scale, bias)

    def pack() -> Tensor:
        w, s, *b = (part.contiguous() for part in parts)
        return torch.ops.charlm_fast_native.int8_pack_linear(w, s, *(b or (None,)))

    return _kept.get(parts, pack)


def linear_int8(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """x (N, K), weight (M, K)."""
    x = x.contiguous()
    y = x.new_empty(x.shape[0], weight.shape[0])
    packed = _packed_linear(weight, scale, bias)
    _module().linear_int8(
        packed.data_ptr(), x.shape[0], x.shape[1], weight.shape[0], x.data_ptr(), y.data_ptr()
    )
    return y


def generate_int8(
    embedding: Tensor,
    weights: Sequence[Tensor],
    head: Sequence[Tensor],
    h0: Tensor,
    c0: Tensor,
    prompts: Tensor,
    lengths: Tensor,
    length: int,
    temperature: Tensor,
    *sampling: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """head: the weight (V, H) in int8, its scales and its bias."""
    weight, scale, bias = head
    return torch.ops.charlm_fast_native.generate_int8(
        embedding.contiguous(),
        _packed_lstm(weights, True, False),
        _packed_linear(weight, scale, bias),
        h0.contiguous(),
        c0.contiguous(),
        prompts.contiguous(),
        lengths.contiguous(),
        length,
        temperature.contiguous(),
        *sampling,
    )
