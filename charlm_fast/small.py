"""``--quantize`` of the commands that read a saved model."""

from __future__ import annotations

import argparse

from .lm.model import CharLM
from .nn.quantize import DTYPES, quantize


def add_flag(group: argparse._ArgumentGroup | argparse.ArgumentParser, text: str) -> None:
    """The flag, which the parsed arguments hold as ``quantize``."""
    group.add_argument("--quantize", choices=DTYPES, help=f"{text} (none)")


def smaller(model: CharLM, dtype: str | None) -> CharLM:
    """The model, or a copy with weights in ``dtype``.

    Raises:
        ValueError: it was quantized before.
    """
    if dtype is None:
        return model
    if model.quantization is not None:
        raise ValueError(
            f"--quantize: got {dtype}, but the model has weights in {model.quantization} already; "
            "leave it out, or give the model that was quantized"
        )
    return quantize(model, dtype)
