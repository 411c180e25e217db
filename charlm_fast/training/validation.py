"""Bits per character of a held-out text, in parallel streams."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..lm.model import CharLM, State

ROWS = 32
ROW_CHARACTERS = 1024  # in a row at least: each starts from zero, which costs a little
BLOCK = 256


@torch.no_grad()
def validate(model: CharLM, ids: Tensor) -> float:
    """Mean of -log2 of the probability of the characters of ids (N,) but the first.

    The text is cut into up to 32 rows of equal length, each read from the zero state; fewer than 32
    characters at the end are left out. That is much faster than one stream from the first to the
    last character, which :func:`charlm_fast.lm.scoring.evaluate` reads, and a little higher.
    """
    rows = min(max((len(ids) - 1) // ROW_CHARACTERS, 1), ROWS)
    length = (len(ids) - 1) // rows
    device = model.encoder.weight.device
    inputs = ids[: rows * length].view(rows, length).T
    targets = ids[1 : rows * length + 1].view(rows, length).T
    nats = torch.zeros((), dtype=torch.float64, device=device)
    state: State | None = None
    training = model.training
    model.eval()
    try:
        for start in range(0, length, BLOCK):
            part = slice(start, start + BLOCK)
            loss, state = model.loss(inputs[part].long(), targets[part].long(), state, "sum")
            nats += loss
    finally:
        model.train(training)
    return float(nats) / (rows * length) / math.log(2)
