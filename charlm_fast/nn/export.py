"""An LSTM in the words of those who read an exported program: torch's operation, or ONNX's node."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

ONNX_GATES = (0, 3, 1, 2)  # i, o, f, c of torch's i, f, g, o
ONNX_LSTM_SINCE = 14


def exporting() -> bool:
    """Whether a program is written down for readers who know torch's LSTM and not ours.

    ``torch.jit.trace`` alone is none of these: its program runs where this package is.
    """
    if torch.compiler.is_compiling():
        return torch.compiler.is_exporting()
    return torch.jit.is_tracing() and _for_onnx()


def _for_onnx() -> bool:
    # An export to ONNX has imported it; nobody else shall wait for that.
    return "torch.onnx" in sys.modules and bool(torch.onnx.is_in_onnx_export())


def lstm(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    weights: Sequence[Tensor],
    has_bias: bool,
    num_layers: int,
    dropout: float,
    training: bool,
    bidirectional: bool,
    has_proj: bool,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """A padded LSTM for an export, or None where torch's operation cannot say it.

    ``torch.export`` unrolls torch's LSTM over its steps, whose number it then fixes. Where that is
    to stay open, ONNX has a node for it, and a program for torch keeps this package's operation.

    Args:
        x: (T, B, I).
        h0, c0: (L * D, B, R or H).
        weights: as for :func:`charlm_fast.functional.lstm`.
    """
    onnx = _for_onnx() and not torch.jit.is_tracing()
    if onnx and not has_proj and not (training and dropout):
        return _onnx_lstm(x, h0, c0, weights, has_bias, num_layers, bidirectional)
    if isinstance(x.shape[0], torch.SymInt):
        return None
    options = (has_bias, num_layers, dropout, training, bidirectional, False)
    y, h, c = torch.lstm(x, (h0, c0), list(weights), *options)
    return y, h, c


def _onnx_lstm(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    weights: Sequence[Tensor],
    has_bias: bool,
    num_layers: int,
    bidirectional: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    directions, each = 2 if bidirectional else 1, 4 if has_bias else 2
    T, B, _ = x.shape
    H = h0.shape[2]
    y, hs, cs = x, [], []
    for layer in range(num_layers):
        k = layer * directions
        groups = [weights[each * d : each * (d + 1)] for d in range(k, k + directions)]
        w, r, *b = (
            torch.stack([_reordered(t) for t in same]) for same in zip(*groups, strict=True)
        )
        y, h, c = torch.onnx.ops.symbolic_multi_out(
            "LSTM",
            (y, w, r, torch.cat(b, 1) if b else None, None, h0[k : k + directions],
             c0[k : k + directions]),
            {"hidden_size": H, "direction": "bidirectional" if bidirectional else "forward"},
            dtypes=(x.dtype,) * 3,
            shapes=((T, directions, B, H), (directions, B, H), (directions, B, H)),
            version=ONNX_LSTM_SINCE,
        )  # fmt: skip
        y = y.transpose(1, 2).reshape(T, B, directions * H)
        hs.append(h)
        cs.append(c)
    return y, torch.cat(hs), torch.cat(cs)


def _reordered(weight: Tensor) -> Tensor:
    gates = weight.chunk(4)
    return torch.cat([gates[k] for k in ONNX_GATES])
