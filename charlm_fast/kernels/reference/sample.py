"""Temperature, filters, softmax and draw in float64, with a sort where a filter ranks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..sampling import ALL_MINUS_INFINITY, NOT_FINITE, UNDERFLOW
from .philox import uniform

BLOCK_ELEMENTS = 1 << 22  # of logits at a time: their float64 copies stay below some 100 MiB


def sample(
    logits: Tensor,
    temperature: Tensor,
    top_k: int,
    top_p: float,
    floor: float,
    seed: int,
    offset: int,
) -> tuple[Tensor, Tensor]:
    count, size = logits.shape
    rows = torch.arange(count, device=logits.device)
    u = uniform(seed, offset, rows)
    block = max(1, BLOCK_ELEMENTS // size)
    parts = [
        _sample(
            logits[k : k + block], temperature[k : k + block], top_k, top_p, floor, u[k:][:block]
        )
        for k in range(0, max(count, 1), block)
    ]
    ids, logprobs = (torch.cat(part) for part in zip(*parts, strict=True))
    return ids, logprobs.to(torch.promote_types(logits.dtype, torch.float32))


def _sample(
    logits: Tensor, temperature: Tensor, top_k: int, top_p: float, floor: float, u: Tensor
) -> tuple[Tensor, Tensor]:
    z = logits.double()
    top = z.amax(1)
    cold = temperature == 0
    x = (z - top[:, None]) / torch.where(cold, 1.0, temperature)[:, None]
    least = torch.full_like(top, max(floor, UNDERFLOW))
    if 0 < top_k < z.shape[1] or top_p < 1:
        least = torch.maximum(least, _rank_floor(x, top_k, top_p))
    weight = torch.where(x >= least[:, None], x.exp(), 0.0)
    running = weight.cumsum(1)
    total = running[:, -1]
    # A sum past the target that rounding hides leaves the last id of any weight.
    hit = (running > (u * total)[:, None]) & (weight > 0)
    last = z.shape[1] - 1 - (weight > 0).flip(1).byte().argmax(1)
    ids = torch.where(hit.any(1), hit.byte().argmax(1), last)
    logprobs = x.gather(1, ids[:, None])[:, 0] - total.log()

    ids = torch.where(cold, (z == top[:, None]).byte().argmax(1), ids)
    logprobs = torch.where(cold, 0.0, logprobs)
    ids = torch.where(top == -math.inf, ALL_MINUS_INFINITY, ids)
    bad = top.isnan() | (top == math.inf)
    return torch.where(bad, NOT_FINITE, ids), logprobs


def _rank_floor(x: Tensor, top_k: int, top_p: float) -> Tensor:
    """The least x that top_k, then top_p keep, ties together."""
    ordered = x.sort(1, descending=True).values
    floor = torch.full_like(x[:, 0], -math.inf)
    if 0 < top_k < x.shape[1]:
        floor = ordered[:, top_k - 1]
    if top_p < 1:
        kept = (ordered >= floor[:, None]) & (ordered >= UNDERFLOW)
        weight = torch.where(kept, ordered.exp(), 0.0)
        running = weight.cumsum(1)
        before = torch.cat([torch.zeros_like(running[:, :1]), running[:, :-1]], 1)
        kept &= before < top_p * running[:, -1:]
        floor = torch.where(kept, ordered, math.inf).amin(1)
    return floor
