"""LSTMs whose weights are stored in fewer bits, for inference: ``charlm_fast.quantize`` makes them.

In int8 the kernels multiply 8-bit integers; in bfloat16 a call widens the weights and computes in
float32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops
from .checks import pair
from .modules import LSTM, LSTMCell, State
from .resets import check_resets, segments
from .short import int8_at_once

__all__ = [
    "Bfloat16LSTM",
    "Bfloat16LSTMCell",
    "Bfloat16Linear",
    "Int8LSTM",
    "Int8LSTMCell",
    "Int8Linear",
]


class Int8LSTM(nn.Module):
    """:class:`charlm_fast.LSTM` with weights in int8; made of one by :func:`charlm_fast.quantize`.

    Arguments, shapes and states are those of ``LSTM``; input and states are float32. Buffers by
    layer, with the suffix ``_reverse`` for the other direction: ``weight_ih_l0`` and
    ``weight_hh_l0`` in int8, ``scale_ih_l0`` and ``scale_hh_l0`` (4H,), ``bias_l0`` (4H,), the sum
    of both, and with projections ``weight_hr_l0`` and ``scale_hr_l0`` (R,).
    """

    mode = "LSTM"
    reset_to_hx = False
    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size: int

    extra_repr: Any = nn.RNNBase.extra_repr
    permute_hidden: Any = nn.LSTM.permute_hidden
    check_forward_args: Any = nn.LSTM.check_forward_args
    get_expected_cell_size: Any = nn.LSTM.get_expected_cell_size

    def forward(self, input: Any, hx: Any = None, resets: Tensor | None = None) -> Any:
        """As ``LSTM.forward``."""
        if resets is None and (found := int8_at_once(self, input, hx)) is not None:
            return found
        return LSTM.forward(self, input, hx, resets)  # type: ignore[arg-type]

    def flatten_parameters(self) -> None:
        """Nothing to do: there are none."""

    def _run(
        self,
        input: Tensor,
        hx: State | None,
        batch_sizes: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        if self.training and self.dropout and self.num_layers > 1:
            raise RuntimeError(
                "dropout: got an int8 LSTM in training mode, expected inference; call model.eval()"
            )
        if resets is not None:
            return self._run_with_resets(input, hx, resets, batch_sizes)
        directions = 2 if self.bidirectional else 1
        stack, recurrent = self.num_layers * directions, self.proj_size or self.hidden_size
        packed = batch_sizes is not None
        if self.batch_first and not packed:
            input = input.transpose(0, 1)
        if (batch_sizes if packed else input).shape[0] == 0:  # type: ignore[union-attr]
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        if hx is None:
            batch = int(batch_sizes[0]) if batch_sizes is not None else input.shape[1]
            h0 = input.new_zeros(stack, batch, recurrent)
            c0 = input.new_zeros(stack, batch, self.hidden_size)
        else:
            h0, c0 = pair(hx)
            if h0.dim() != 3 or h0.shape[0] != stack or h0.shape[2] != recurrent:
                raise RuntimeError(
                    f"Expected hidden[0] size {(stack, input.shape[-2], recurrent)}, "
                    f"got {list(h0.shape)}"
                )
            if c0.shape != (stack, h0.shape[1], self.hidden_size):
                raise RuntimeError(
                    f"Expected hidden[1] size {(stack, h0.shape[1], self.hidden_size)}, "
                    f"got {list(c0.shape)}"
                )
        weights: Any = tuple(self._buffers.values())  # in the order of the operation
        has_bias, has_proj = self.bias, self.proj_size > 0
        if directions == 1:
            y, h, c = ops.lstm_int8(
                input, h0, c0, weights, batch_sizes=batch_sizes, has_bias=has_bias,
                has_proj=has_proj,
            )  # fmt: skip
        else:
            each = 4 + has_bias + 2 * has_proj
            y, states = input, []
            for layer in range(self.num_layers):
                outputs = []
                for k in (2 * layer, 2 * layer + 1):
                    out, *last = ops.lstm_int8(
                        y, h0[k : k + 1], c0[k : k + 1], weights[each * k : each * (k + 1)],
                        batch_sizes=batch_sizes, has_bias=has_bias, has_proj=has_proj,
                        reverse=k % 2 == 1,
                    )  # fmt: skip
                    outputs.append(out)
                    states.append(last)
                y = torch.cat(outputs, -1)
            h, c = (torch.cat(parts) for parts in zip(*states, strict=True))
        if self.batch_first and not packed:
            y = y.transpose(0, 1)
        return y, h, c

    def _run_with_resets(
        self, input: Tensor, hx: State | None, resets: Tensor, batch_sizes: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Each piece between resets is a row of a packed batch, as in nn/functional.py."""
        check_resets(resets, input, batch_sizes, self.batch_first)
        if input.numel() == 0 or not bool(resets.any()):
            return self._run(input, hx)
        if self.batch_first:
            input, resets = input.transpose(0, 1), resets.transpose(0, 1)
        T, B, _ = input.shape
        pieces, directions = segments(resets), 2 if self.bidirectional else 1
        started = None
        if hx is not None:
            h, c = (pieces.start(s, directions, self.reset_to_hx) for s in pair(hx))
            started = (h, c)
        rows = input.reshape(T * B, -1).index_select(0, pieces.order)
        y, h, c = self._run(rows, started, pieces.batch_sizes)
        y = y.index_select(0, pieces.places).unflatten(0, (T, B))
        if self.batch_first:
            y = y.transpose(0, 1)
        return y, pieces.end(h, directions), pieces.end(c, directions)


class Int8LSTMCell(nn.Module):
    """:class:`charlm_fast.LSTMCell` with weights in int8; input and states are float32.

    Buffers: ``weight_ih`` and ``weight_hh`` in int8, ``scale_ih`` and ``scale_hh`` (4H,), and
    ``bias_sum`` (4H,), the sum of both biases.
    """

    input_size: int
    hidden_size: int
    bias: bool

    extra_repr: Any = nn.RNNCellBase.extra_repr

    def forward(self, input: Tensor, hx: State | None = None) -> State:
        if input.dim() not in (1, 2):
            raise ValueError(f"LSTMCell: Expected input to be 1D or 2D, got {input.dim()}D instead")
        batched = input.dim() == 2
        x = input.unsqueeze(0) if batched else input.view(1, 1, -1)
        if hx is None:
            h = c = input.new_zeros(1, x.shape[1], self.hidden_size)
        else:
            h, c = pair(hx)
            for k, state in enumerate((h, c)):
                if state.dim() != input.dim():
                    raise ValueError(
                        f"LSTMCell: Expected hx[{k}] to be {input.dim()}D as the input, "
                        f"got {state.dim()}D instead"
                    )
            h, c = (s.unsqueeze(0) if batched else s.view(1, 1, -1) for s in (h, c))
        weights: Any = tuple(self._buffers.values())  # in the order of the operation
        _, h, c = ops.lstm_int8(x, h, c, weights, has_bias=self.bias)
        return (h[0], c[0]) if batched else (h[0, 0], c[0, 0])


class Int8Linear(nn.Module):
    """``nn.Linear`` with int8 weights: buffers ``weight`` (N, K), ``scale`` and ``bias`` (N,)."""

    in_features: int
    out_features: int
    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    extra_repr: Any = nn.Linear.extra_repr

    def forward(self, input: Tensor) -> Tensor:
        rows = input.reshape(-1, input.shape[-1])
        return ops.linear_int8(rows, self.weight, self.scale, self.bias).view(*input.shape[:-1], -1)


class Bfloat16LSTM(LSTM):
    """:class:`charlm_fast.LSTM` whose weights are kept in bfloat16, and widened by each call."""

    @property
    def all_weights(self) -> list[list[Tensor]]:  # type: ignore[override]
        return [[w.float() for w in layer] for layer in super().all_weights]


class Bfloat16LSTMCell(nn.Module):
    """:class:`charlm_fast.LSTMCell` whose weights are kept in bfloat16, widened by each call."""

    input_size: int
    hidden_size: int
    bias: bool

    extra_repr: Any = nn.RNNCellBase.extra_repr
    forward = LSTMCell.forward

    def __getattr__(self, name: str) -> Any:
        value = super().__getattr__(name)
        return value.float() if name in ("weight_ih", "weight_hh") else value


class Bfloat16Linear(nn.Module):
    """``nn.Linear`` whose weight is kept in bfloat16, and widened by each call."""

    in_features: int
    out_features: int
    weight: Tensor
    bias: Tensor | None

    extra_repr: Any = nn.Linear.extra_repr

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight.float(), self.bias)
