"""Several language models as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .model import CharLM

GATES = 4


@torch.no_grad()
def joined(models: Sequence[CharLM]) -> CharLM:
    """One model whose logits are the mean of those of several models.

    Its distribution is the normalized geometric mean of theirs, the product of experts of Hinton,
    "Training products of experts by minimizing contrastive divergence" (2002), with equal weights.
    Models that differ in their seeds alone err in different places, and together predict better
    than each. The new model's hidden layers hold theirs side by side, in blocks that do not touch:
    it has the sum of their units, and its recurrent matrices are mostly zeros, so that it writes
    and reads more slowly than they would one after the other.

    Args:
        models: with the same characters, the same number of layers and one dtype.

    Returns:
        a new model in evaluation mode on the first one's device. Its head has a weight of its own,
        and it drops nothing while it trains.

    Raises:
        ValueError: there are less than two models, or they do not go together.
    """
    models = list(models)
    _check(models)
    first = models[0]
    units = [model.hidden_size for model in models]
    found = CharLM(first.vocab_size, sum(units), first.num_layers, vocabulary=first.vocabulary).to(
        first.encoder.weight
    )  # dtype and device
    for name, parameter in found.named_parameters():
        parts = [model.get_parameter(name).to(parameter.device) for model in models]
        parameter.copy_(_joined(name, parts, units))
    return found.eval()


def _joined(name: str, parts: Sequence[Tensor], units: Sequence[int]) -> Tensor:
    """A parameter of the new model, from the same one of each model."""
    if name == "encoder.weight":
        return torch.cat(list(parts), 1)
    if name == "decoder.weight":
        return torch.cat(list(parts), 1) / len(parts)
    if name == "decoder.bias":
        return torch.stack(list(parts)).mean(0)
    # Rows of w_ih, w_hh and the biases come gate by gate.
    gates = [part.unflatten(0, (GATES, size)) for part, size in zip(parts, units, strict=True)]
    if gates[0].dim() == 2:
        return torch.cat(gates, 1).flatten()
    return torch.stack([torch.block_diag(*blocks) for blocks in zip(*gates, strict=True)]).flatten(
        0, 1
    )


def _check(models: Sequence[Any]) -> None:
    if len(models) < 2:
        raise ValueError(f"models: got {len(models)}, expected at least 2 to join")
    first = models[0]
    for number, model in enumerate(models, 1):
        if not isinstance(model, CharLM):
            raise ValueError(
                f"models: number {number} is a {type(model).__name__}, expected a CharLM"
            )
        if model.quantization is not None:
            raise ValueError(
                f"models: number {number} has weights in {model.quantization}; join the models "
                "that were quantized, and quantize what comes of it"
            )
        if any(p.is_meta for p in model.parameters()):
            raise ValueError(f"models: number {number} is on the meta device and has no weights")
        if not model.fuses():
            raise ValueError(
                f"models: number {number} has parts that were wrapped, hooked or replaced; give "
                "it as it was made"
            )
        for what, mine, others in (
            ("layers", first.num_layers, model.num_layers),
            ("characters", first.vocab_size, model.vocab_size),
            *(("weights of", first.encoder.weight.dtype, p.dtype) for p in model.parameters()),
        ):
            if mine != others:
                raise ValueError(
                    f"models: number 1 has {_count(what, mine)} and number {number} "
                    f"{_count(what, others)}; expected the same"
                )
        if model.vocabulary != first.vocabulary:
            raise ValueError(
                f"models: number {number} has other characters than number 1; train them with one "
                "vocabulary (--vocab)"
            )


def _count(what: str, value: Any) -> str:
    return f"{what} {value}" if what == "weights of" else f"{value} {what}"
