"""Generation of text, one character at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .model import CharLM, State


def check_arguments(
    length: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
) -> None:
    """Raise ValueError for the first argument that is out of its range."""
    if type(length) is not int or length < 0:
        raise ValueError(f"length: got {length!r}, expected an integer of at least 0")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(
            f"temperature: got {temperature!r}, expected a finite number of at least 0"
        )
    if top_k is not None and (type(top_k) is not int or top_k < 1):
        raise ValueError(f"top_k: got {top_k!r}, expected an integer of at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p: got {top_p!r}, expected a number in (0, 1]")
    if min_p is not None and not 0 <= min_p <= 1:
        raise ValueError(f"min_p: got {min_p!r}, expected a number in [0, 1]")


@torch.no_grad()
def generate(
    model: CharLM,
    primes: list[Tensor],
    length: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    seed: int | None,
) -> tuple[Tensor, Tensor]:
    """Continue B primes, ids (P_b,) each, by ``length`` characters.

    Returns:
        ids (length, B) and the log-probabilities (length, B) with which they were drawn.
    """
    check_arguments(length, temperature, top_k, top_p, min_p)
    device = model.encoder.weight.device
    generator = None if seed is None else torch.Generator(device).manual_seed(seed)
    training = model.training
    model.eval()
    try:
        logits, state = _read(model, [prime.to(device) for prime in primes])
        ids = torch.empty(length, len(primes), dtype=torch.int64, device=device)
        logprobs = torch.empty(length, len(primes), device=device, dtype=logits.dtype)
        for step in range(length):
            log_p = _distribution(logits, temperature, top_k, top_p, min_p)
            drawn = torch.multinomial(log_p.exp(), 1, generator=generator)
            ids[step] = drawn[:, 0]
            logprobs[step] = log_p.gather(1, drawn)[:, 0]
            if step + 1 < length:
                logits, state = model(drawn.t(), state)
                logits = logits[0]
        return ids, logprobs
    finally:
        model.train(training)


def _read(model: CharLM, primes: list[Tensor]) -> tuple[Tensor, State]:
    """The logits (B, V) after the primes, and the state; primes of equal length run together."""
    by_length: dict[int, list[int]] = {}
    for row, prime in enumerate(primes):
        by_length.setdefault(len(prime), []).append(row)
    logits: list[Tensor] = [torch.empty(0)] * len(primes)
    states: list[tuple[Tensor, Tensor]] = [(torch.empty(0), torch.empty(0))] * len(primes)
    for rows in by_length.values():
        found, (h, c) = model(torch.stack([primes[row] for row in rows], 1))
        for k, row in enumerate(rows):
            logits[row], states[row] = found[-1, k], (h[:, k], c[:, k])
    h, c = (torch.stack(parts, 1) for parts in zip(*states, strict=True))
    return torch.stack(logits), (h, c)


def _distribution(
    logits: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
) -> Tensor:
    """Log-probabilities (B, V) to draw from."""
    if temperature == 0:
        log_p = torch.full_like(logits, -math.inf)
        return log_p.scatter_(1, logits.argmax(1, keepdim=True), 0.0)
    # The largest becomes 0, which no temperature makes infinite.
    log_p = ((logits - logits.amax(1, keepdim=True)) / temperature).log_softmax(1)
    if top_k is None and top_p is None and min_p is None:
        return log_p
    ordered, order = log_p.sort(1, descending=True)
    keep = torch.ones_like(ordered, dtype=torch.bool)
    if top_k is not None:
        keep[:, top_k:] = False
    if top_p is not None:
        p = ordered.exp()
        keep &= p.cumsum(1) - p < top_p
    if min_p:
        keep &= ordered >= ordered[:, :1] + math.log(min_p)
    kept = torch.zeros_like(keep).scatter_(1, order, keep)
    return log_p.masked_fill(~kept, -math.inf).log_softmax(1)
