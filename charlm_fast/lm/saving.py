"""A model as the files that load again."""

from __future__ import annotations

import os
from typing import Any

from torch import Tensor

from . import checkpoint


def save(model: Any, directory: str | os.PathLike[str], notes: str) -> None:
    """As :meth:`charlm_fast.CharLM.save_pretrained`."""
    tensors = model.state_dict()
    tied = tensors.get("decoder.weight") is not None and _same_memory(
        tensors["decoder.weight"], tensors.get("encoder.weight")
    )
    if tied:
        del tensors["decoder.weight"]
    config = {
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "num_layers": model.num_layers,
        "dropout": model.dropout,
        "weight_dropout": model.weight_dropout,
        "output_dropout": model.output_dropout,
        "tie_weights": tied,
        "vocabulary": model.vocabulary.to_config() if model.vocabulary is not None else None,
    }
    if model.quantization is not None:
        config["quantization"] = model.quantization
    checkpoint.save(directory, config, tensors, notes)


def _same_memory(one: Tensor, other: Tensor | None) -> bool:
    return other is not None and one.shape == other.shape and one.data_ptr() == other.data_ptr()
