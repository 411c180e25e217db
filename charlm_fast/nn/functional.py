"""Operations as functions, beside those of torch.nn.functional.

``lstm`` composes layers, directions and dropout from the one-direction operation; ``sample`` is the
operation as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import ops
from ..ops import sample
from . import by_torch, export
from .autocast import cast
from .checks import check_devices, check_dtypes, pair
from .resets import check_resets, segments
from .transforms import forced, loop, only_torch_serves, refuse_forced, vmapped

__all__ = ["lstm", "lstm_cell", "sample"]


def lstm(
    input: Tensor,
    hx: tuple[Tensor, Tensor] | None,
    weights: Sequence[Tensor],
    has_bias: bool = True,
    num_layers: int = 1,
    dropout: float = 0.0,
    training: bool = False,
    bidirectional: bool = False,
    batch_first: bool = False,
    *,
    batch_sizes: Tensor | None = None,
    resets: Tensor | None = None,
    reset_to_hx: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Multi-layer LSTM over a sequence, as :class:`torch.nn.LSTM` computes it.

    T steps, B rows, I input columns, H hidden units, L layers, D = 2 if ``bidirectional`` else 1,
    R = H or, with projections, their size.

    Args:
        input: (T, B, I); (B, T, I) if ``batch_first``; (N, I) with ``batch_sizes``, as in
            :class:`torch.nn.utils.rnn.PackedSequence`. Empty batches are allowed.
        hx: ``h_0`` (L * D, B, R) and ``c_0`` (L * D, B, H); zeros if None.
        weights: for each layer, and in it for each direction, ``w_ih`` (4H, I or D * R), ``w_hh``
            (4H, R), then ``b_ih`` and ``b_hh`` (4H) if ``has_bias``, then ``w_hr`` (R, H) if there
            are projections; gates in the order i, f, g, o.
        dropout: probability, applied when ``training`` to the output of all layers but the last.
            Drawn with :func:`torch.nn.functional.dropout`; whether the same seed gives the masks of
            ``nn.LSTM`` is not promised.
        batch_sizes: int64 (T,) on the CPU: rows alive at each step, not increasing.
        resets: bool (T, B), or (B, T) if ``batch_first``: before a step where it is set, the state
            of that row is zero, as where an episode begins. Each row is then several sequences, of
            their own in both directions, and all are run as one packed batch. Not with
            ``batch_sizes``.
        reset_to_hx: a reset gives a row its ``hx``, such as an initial state that is learnt, in
            place of zeros.

    All tensors share one floating dtype and one device. Under autocast they are cast to its dtype,
    float64 apart, and the results have it. With projections or ``batch_sizes`` on the CPU, autocast
    lowers the products alone, as in ``nn.LSTM``: c_n has the wider of autocast's dtype and c_0's
    (``input``'s, if ``hx`` is None), and so have output and h_n unless there are projections. These
    dtypes are the same on every CPU; those of ``nn.LSTM`` are not: without AVX-512 it keeps a
    float32 state or raises an error. On the CPU, bfloat16 has kernels where there is AVX512_BF16;
    other lower precision is computed in float32. Complex tensors, ``torch.func`` transforms and
    forward-mode gradients are left to torch's own implementation, and ``torch.vmap``, for which
    torch has none, to a loop over the steps.

    Returns:
        output (T, B, D * R), (B, T, D * R) or (N, D * R); h_n (L * D, B, R); c_n (L * D, B, H).

    Raises:
        RuntimeError: a shape, a state's dtype or a device does not fit; the sequence is empty.
        ValueError: the dtype of ``input`` is not the weights' (RuntimeError with ``batch_sizes``);
            ``resets`` is not bool, has another shape, or comes with ``batch_sizes``.
        BackendError: a forced backend cannot serve the call.
    """
    if resets is not None:
        return _lstm_with_resets(
            input, hx, resets, reset_to_hx, batch_sizes, batch_first, weights, has_bias, num_layers,
            dropout, training, bidirectional,
        )  # fmt: skip
    directions = 2 if bidirectional else 1
    each, rest = divmod(len(weights), num_layers * directions)
    has_proj = each == (5 if has_bias else 3)
    if rest or each - has_proj != (4 if has_bias else 2):
        raise RuntimeError(
            f"weights: got {len(weights)} tensors for {num_layers} layers in {directions} "
            f"direction(s), expected {4 if has_bias else 2} each, or one more with projections"
        )
    dims = 3 if batch_sizes is None else 2
    if input.dim() != dims:
        raise RuntimeError(f"input must have {dims} dimensions, got {input.dim()}")
    if input.shape[-1] != weights[0].shape[1]:
        raise RuntimeError(
            "input.size(-1) must be equal to input_size. "
            f"Expected {weights[0].shape[1]}, got {input.shape[-1]}"
        )
    if batch_first and batch_sizes is None:
        input = input.transpose(0, 1)
    if (input if batch_sizes is None else batch_sizes).shape[0] == 0:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    batch: Any  # a traced one is a Tensor
    if batch_sizes is None:
        batch = input.shape[1]
    elif torch.compiler.is_compiling() and hx is not None:  # which cannot read a value
        batch = hx[0].shape[1]
    else:  # a trace has to see where it comes from
        batch = batch_sizes[0] if torch.jit.is_tracing() else int(batch_sizes[0])
    hidden_size, recurrent_size = weights[1].shape[0] // 4, weights[1].shape[1]
    stack = num_layers * directions
    if hx is None:
        h0 = input.new_zeros(stack, batch, recurrent_size)
        c0 = h0 if not has_proj else input.new_zeros(stack, batch, hidden_size)
    else:
        h0, c0 = pair(hx)
        for k, state, size in ((0, h0, recurrent_size), (1, c0, hidden_size)):
            if state.shape != (stack, batch, size):
                raise RuntimeError(
                    f"Expected hidden[{k}] size {(stack, batch, size)}, got {list(state.shape)}"
                )
    dropping = training and dropout > 0 and num_layers > 1
    if directions == 1 and batch_sizes is None and not has_proj and not dropping:
        few = ops.lstm_steps(input, h0, c0, weights, has_bias)
        if few is not None:
            y, h, c = few
            return (y.transpose(0, 1) if batch_first else y), h, c
    check_devices(input, (h0, c0), weights)
    mapped = vmapped()
    run = loop if mapped else ops.lstm
    if mapped:
        refuse_forced("lstm")
    elif only_torch_serves(input):
        refuse_forced("lstm")
        options = (has_bias, num_layers, dropout, training, bidirectional)
        y, h, c = by_torch.lstm(input, h0, c0, weights, *options, batch_sizes)
        return (y.transpose(0, 1) if batch_first and batch_sizes is None else y), h, c
    elif export.exporting() and forced() == "auto" and batch_sizes is None:
        options = (has_bias, num_layers, dropout, training, bidirectional)
        told = export.lstm(input, h0, c0, weights, *options, has_proj)
        if told is not None:
            y, h, c = told
            return (y.transpose(0, 1) if batch_first else y), h, c
    error = ValueError if batch_sizes is None else RuntimeError  # as nn.LSTM has it
    padded = batch_sizes is None and directions == 1
    if not mapped and by_torch.is_left(input, h0, c0, weights, padded):
        if not torch.is_autocast_enabled(input.device.type):
            check_dtypes(input, (h0, c0), weights, error)
        options = (has_bias, num_layers, dropout, training, bidirectional)
        y, h, c = by_torch.lstm(input, h0, c0, weights, *options, batch_sizes)
        return (y.transpose(0, 1) if batch_first and batch_sizes is None else y), h, c
    wide = input.device.type == "cpu" and (has_proj or batch_sizes is not None)
    input, h0, c0, weights, y_dtype, c_dtype = cast(input, h0, c0, weights, wide, has_proj)
    check_dtypes(input, (h0, c0), weights, error)

    groups = [_one_bias(weights[k : k + each], has_bias) for k in range(0, len(weights), each)]
    if directions == 1 and not dropping:
        flat = [w for group in groups for w in group]
        y, h, c = run(
            input, h0, c0, flat, batch_sizes=batch_sizes, has_bias=has_bias, has_proj=has_proj
        )
    else:
        y, hs, cs = input, [], []
        for layer in range(num_layers):
            if layer and dropping:
                y = F.dropout(y, dropout, training=True)
            outputs = []
            for k in range(layer * directions, (layer + 1) * directions):
                out, h, c = run(
                    y,
                    h0[k : k + 1],
                    c0[k : k + 1],
                    groups[k],
                    batch_sizes=batch_sizes,
                    has_bias=has_bias,
                    has_proj=has_proj,
                    reverse=k % directions == 1,
                )
                outputs.append(out)
                hs.append(h)
                cs.append(c)
            y = outputs[0] if directions == 1 else torch.cat(outputs, -1)
        h, c = torch.cat(hs), torch.cat(cs)
    if batch_first and batch_sizes is None:
        y = y.transpose(0, 1)
    return y.to(y_dtype), h.to(y_dtype), c.to(c_dtype)


def _lstm_with_resets(
    input: Tensor,
    hx: tuple[Tensor, Tensor] | None,
    resets: Tensor,
    reset_to_hx: bool,
    batch_sizes: Tensor | None,
    batch_first: bool,
    weights: Sequence[Tensor],
    has_bias: bool,
    num_layers: int,
    dropout: float,
    training: bool,
    bidirectional: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`lstm` of rows cut at their resets: each piece is a row of a packed batch."""
    check_resets(resets, input, batch_sizes, batch_first)
    options = (weights, has_bias, num_layers, dropout, training, bidirectional)
    if input.numel() == 0 or not (torch.compiler.is_compiling() or bool(resets.any())):
        return lstm(input, hx, *options, batch_first)
    if batch_first:
        input, resets = input.transpose(0, 1), resets.transpose(0, 1)
    T, B, _ = input.shape
    pieces = segments(resets)
    directions = 2 if bidirectional else 1
    stack, recurrent, hidden = (
        num_layers * directions,
        weights[1].shape[1],
        weights[1].shape[0] // 4,
    )
    if hx is None:
        started = tuple(
            input.new_zeros(stack, len(pieces.rows), size) for size in (recurrent, hidden)
        )
    else:
        for k, (state, size) in enumerate(zip(pair(hx), (recurrent, hidden), strict=True)):
            if state.shape != (stack, B, size):
                raise RuntimeError(
                    f"Expected hidden[{k}] size {(stack, B, size)}, got {list(state.shape)}"
                )
        started = tuple(pieces.start(state, directions, reset_to_hx) for state in pair(hx))
    y, h, c = lstm(
        input.reshape(T * B, -1).index_select(0, pieces.order),
        (started[0], started[1]),
        *options,
        batch_sizes=pieces.batch_sizes,
    )
    y = y.index_select(0, pieces.places).unflatten(0, (T, B))
    if batch_first:
        y = y.transpose(0, 1)
    return y, pieces.end(h, directions), pieces.end(c, directions)


def lstm_cell(
    input: Tensor,
    hx: tuple[Tensor, Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of an LSTM, as :class:`torch.nn.LSTMCell` computes it.

    On the CPU a step of few rows runs in one call from the weights as they lie. Where it can't, and
    on other devices, ``auto`` leaves a step to torch's own cell: a kernel for sequences rearranges
    the weights on each call. A forced backend runs its kernel.

    Args:
        input: (B, I).
        hx: ``h`` and ``c``, each (B, H).
        w_ih: (4H, I); gates in the order i, f, g, o.
        w_hh: (4H, H).
        b_ih: (4H) or None.
        b_hh: (4H) or None.

    Returns:
        The next h and c, each (B, H).

    Raises:
        RuntimeError: a shape, dtype or device does not fit.
        BackendError: a forced backend cannot serve the call.
    """
    h0, c0 = pair(hx)
    few = ops.lstm_cell(input, h0, c0, w_ih, w_hh, b_ih, b_hh)
    if few is not None:
        return few
    hidden_size = w_hh.shape[1]
    if input.dim() != 2:
        raise RuntimeError(f"input must have 2 dimensions, got {input.dim()}")
    if input.shape[1] != w_ih.shape[1]:
        raise RuntimeError(
            f"input has inconsistent input_size: got {input.shape[1]} expected {w_ih.shape[1]}"
        )
    for k, state in enumerate((h0, c0)):
        if state.shape[0] != input.shape[0]:
            raise RuntimeError(
                f"Input batch size {input.shape[0]} doesn't match hidden{k} batch size "
                f"{state.shape[0]}"
            )
        if state.size(1) != hidden_size:
            raise RuntimeError(
                f"hidden{k} has inconsistent hidden_size: got {state.size(1)}, "
                f"expected {hidden_size}"
            )
        if state.dim() != 2:
            raise RuntimeError(f"hidden{k} must have 2 dimensions, got {state.dim()}")
    biases = [b for b in (b_ih, b_hh) if b is not None]
    weights: Sequence[Tensor] = [w_ih, w_hh, *biases]
    check_devices(input, (h0, c0), weights)
    mapped = vmapped()
    if mapped:
        refuse_forced("lstm_cell")
    elif forced() == "auto" or only_torch_serves(input):
        refuse_forced("lstm_cell")
        return torch.lstm_cell(input, (h0, c0), w_ih, w_hh, b_ih, b_hh)
    x, h0, c0, weights, h_dtype, c_dtype = cast(
        input, h0, c0, weights, input.device.type == "cpu", False
    )
    check_dtypes(x, (h0, c0), weights, RuntimeError)
    w_ih, w_hh, *biases = weights
    if len(biases) == 2:
        biases = [ops.add_biases(*biases)]
    _, h, c = (loop if mapped else ops.lstm)(
        x.unsqueeze(0),
        h0.unsqueeze(0),
        c0.unsqueeze(0),
        [w_ih, w_hh, *biases],
        has_bias=len(biases) > 0,  # bool() of a list breaks the graph of torch 2.10
    )
    return h.squeeze(0).to(h_dtype), c.squeeze(0).to(c_dtype)


def _one_bias(group: Sequence[Tensor], has_bias: bool) -> list[Tensor]:
    """The operation takes b_ih + b_hh; autograd hands the sum's gradient to both."""
    if not has_bias:
        return list(group)
    w_ih, w_hh, b_ih, b_hh, *w_hr = group
    return [w_ih, w_hh, ops.add_biases(b_ih, b_hh), *w_hr]
