"""A model's weights as a page holds them: int8 with a scale for each row, or float16."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import torch
from torch import Tensor

from ..lm.model import CharLM

PRECISIONS = ("int8", "float16")
MOST_BYTES = 256 << 20  # of weights: browsers hold no text above about 500 MB
STEPS = 127  # of an int8 scale on each side of zero
KEPT_BITS = 16  # of a scale's significand, so that its product with an int8 is exact in float32


@dataclass(frozen=True)
class Matrix:
    """A weight matrix (R, C) as a page holds it.

    Args:
        values: (R, C) int8 or float16.
        scales: (R,) float32 for int8, which the values of their rows are multiplied by; or None.
    """

    values: Tensor
    scales: Tensor | None

    def dequantised(self) -> Tensor:
        """The matrix (R, C) float32 that the page computes with, every element exact."""
        values = self.values.float()
        return values if self.scales is None else values * self.scales[:, None]


@dataclass(frozen=True)
class Weights:
    """All of a model as a page holds it, in the order in which the page reads it.

    Args:
        matrices: embedding; by layer, input and recurrent weights; the head's unless it is tied.
        biases: float32; by layer the sum of both (4H,), then the head's (V,).
    """

    precision: str
    matrices: list[Matrix]
    biases: list[Tensor]

    def to_json(self) -> dict[str, str]:
        """Numbers in base64, least byte first."""
        out = {
            "precision": self.precision,
            "values": _base64([m.values for m in self.matrices]),
            "biases": _base64(self.biases),
        }
        if self.precision == "int8":
            out["scales"] = _base64([m.scales for m in self.matrices if m.scales is not None])
        return out

    def base64_bytes(self) -> int:
        """How long the strings of :meth:`to_json` are, together."""
        tensors = [m.values for m in self.matrices] + self.biases
        tensors += [m.scales for m in self.matrices if m.scales is not None]
        return sum(t.numel() * t.element_size() for t in tensors) * 4 // 3


def quantise(model: CharLM, precision: str = "int8") -> Weights:
    """The weights of a model, rounded.

    Raises:
        ValueError: the precision is unknown, a weight is not finite or too large for float16, or
            the model is larger than a browser opens.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: got {precision!r}, expected one of {', '.join(PRECISIONS)}")
    parameters = sum(p.numel() for p in model.parameters())
    size = parameters * (1 if precision == "int8" else 2)
    if size > MOST_BYTES:
        raise ValueError(
            f"model: its {parameters:,} parameters take {size / 1e6:,.0f} MB as {precision}, "
            f"expected at most {MOST_BYTES / 1e6:.0f} MB, about what a browser opens"
        )
    matrices = [model.encoder.weight]
    biases = []
    for w_ih, w_hh, b_ih, b_hh in model.lstm.all_weights:
        matrices += [w_ih, w_hh]
        biases.append((b_ih.detach() + b_hh.detach()).float().cpu())
    if not model.tie_weights:
        matrices.append(model.decoder.weight)
    biases.append(model.decoder.bias.detach().float().cpu())
    for tensor in (*matrices, *biases):
        if not bool(tensor.isfinite().all()):
            raise ValueError("model: it has a weight that is NaN or infinite; train it again")
    round_ = _int8 if precision == "int8" else _float16
    return Weights(precision, [round_(m.detach().float().cpu()) for m in matrices], biases)


def page_model(model: CharLM, precision: str = "int8") -> CharLM:
    """The model that a page of this precision computes with, in float32 and evaluation mode.

    With the same seed, temperature and filters it writes what the page writes, except where a draw
    falls between two characters within rounding: the page computes in float64, as this model does
    after ``.double()``.

    Raises:
        ValueError: as :func:`quantise`.
    """
    weights = quantise(model, precision)
    matrices = iter(weights.matrices)
    state = {"encoder.weight": next(matrices).dequantised()}
    for layer in range(model.num_layers):
        state[f"lstm.weight_ih_l{layer}"] = next(matrices).dequantised()
        state[f"lstm.weight_hh_l{layer}"] = next(matrices).dequantised()
        state[f"lstm.bias_ih_l{layer}"] = weights.biases[layer]
        state[f"lstm.bias_hh_l{layer}"] = torch.zeros_like(weights.biases[layer])
    tied = state["encoder.weight"]
    state["decoder.weight"] = tied if model.tie_weights else next(matrices).dequantised()
    state["decoder.bias"] = weights.biases[-1]
    with torch.random.fork_rng(devices=[]):  # its own initial weights are drawn in vain
        out = CharLM(
            model.vocab_size,
            model.hidden_size,
            model.num_layers,
            tie_weights=model.tie_weights,
            vocabulary=model.vocabulary,
        )
    out.load_state_dict(state)
    return out.eval()


def _int8(matrix: Tensor) -> Matrix:
    largest = matrix.abs().amax(1)
    # Rounded up to few bits, so that no value is beyond 127 steps.
    fraction, exponent = torch.frexp(largest.double() / STEPS)
    scales = torch.ldexp(torch.ceil(fraction * 2**KEPT_BITS) / 2**KEPT_BITS, exponent).float()
    steps = matrix.double() / torch.where(scales > 0, scales, 1.0).double()[:, None]
    return Matrix(steps.round().clamp(-STEPS, STEPS).to(torch.int8), scales)


def _float16(matrix: Tensor) -> Matrix:
    halves = matrix.half()
    if not bool(halves.isfinite().all()):
        raise ValueError(
            f"model: a weight of {float(matrix.abs().max()):.3g} is beyond float16, "
            "expected at most 65504; take int8"
        )
    return Matrix(halves, None)


def _base64(tensors: list[Tensor]) -> str:
    parts = [t.contiguous().numpy() for t in tensors]
    raw = b"".join(p.astype(p.dtype.newbyteorder("<")).tobytes() for p in parts)
    return base64.b64encode(raw).decode("ascii")
