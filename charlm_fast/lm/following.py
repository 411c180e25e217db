"""Which characters may follow a text, and how likely each is."""

from __future__ import annotations

import math
from typing import Any

import torch

from .writing import encode_prime


@torch.no_grad()
def next_characters(model: Any, prime: str, k: int, temperature: float) -> list[tuple[str, float]]:
    """As :meth:`charlm_fast.CharLM.next_characters`, whose arguments and results these are."""
    if isinstance(k, bool) or not hasattr(k, "__index__") or k < 1:
        raise ValueError(f"k: got {k!r}, expected an integer of at least 1")
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature: got {temperature!r}, expected a positive number")
    ids = encode_prime(model, prime).to(model.encoder.weight.device)
    training = model.training
    model.eval()
    try:
        logits, _ = model(ids[:, None])
    finally:
        model.train(training)
    shares = (logits[-1, 0].double() / temperature).softmax(0)
    top = shares.topk(min(int(k), model.vocab_size))
    vocabulary = model.vocabulary
    return [
        (vocabulary.decode([i]) if vocabulary.characters or i < 0x80 else f"\\x{i:02x}", p)
        for i, p in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]
