"""One pass over rows split among threads."""

from __future__ import annotations

import torch
from torch import Tensor


def sample(
    logits: Tensor,
    temperature: Tensor,
    top_k: int,
    top_p: float,
    floor: float,
    seed: int,
    offset: int,
) -> tuple[Tensor, Tensor]:
    return torch.ops.charlm_fast_native.sample(
        logits.contiguous(), temperature.contiguous(), top_k, top_p, floor, seed, offset
    )
