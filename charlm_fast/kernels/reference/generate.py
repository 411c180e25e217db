"""Generation as the plain loop: one step of the LSTM, the head and a draw for each character."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .lstm import lstm
from .sample import sample


def generate(
    embedding: Tensor,
    weights: list[Tensor],
    has_bias: bool,
    head: Tensor,
    head_bias: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    prompts: Tensor,
    lengths: Tensor,
    length: int,
    temperature: Tensor,
    top_k: int,
    top_p: float,
    floor: float,
    seed: int,
    offset: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    def step(ids: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, h, c, _ = lstm(embedding, ids[None], None, h, c, weights, has_bias, False, False, False)
        return y[0], h, c

    h, c = h0.clone(), c0.clone()
    batch = h.shape[1]
    columns = torch.arange(batch, device=h.device)
    if batch:
        # Each prompt but its last id; rows that have read theirs wait.
        for t in range(int(lengths.max()) - 1):
            _, read_h, read_c = step(prompts[t], h, c)
            reading = (t < lengths - 1)[None, :, None]
            h, c = torch.where(reading, read_h, h), torch.where(reading, read_c, c)
    last = prompts[lengths - 1, columns]
    ids = prompts.new_empty(length, batch)
    logprobs = h.new_empty(length, batch, dtype=torch.promote_types(h.dtype, torch.float32))
    for t in range(length if batch else 0):
        y, h, c = step(last, h, c)
        logits = F.linear(y, head, head_bias)
        drawn, logprob = sample(logits, temperature, top_k, top_p, floor, seed, offset + t)
        # A row without a draw stays so.
        ids[t] = drawn if t == 0 else torch.where(ids[t - 1] < 0, ids[t - 1], drawn)
        logprobs[t] = logprob
        last = ids[t].clamp(min=0)
    return ids, logprobs, h, c
