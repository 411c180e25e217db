"""The whole text in one call."""

from __future__ import annotations

import torch
from torch import Tensor


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
    *sampling: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.ops.charlm_fast_native.generate(
        embedding.contiguous(),
        [w.contiguous() for w in weights],
        has_bias,
        head.contiguous(),
        None if head_bias is None else head_bias.contiguous(),
        h0.contiguous(),
        c0.contiguous(),
        prompts.contiguous(),
        lengths.contiguous(),
        length,
        temperature.contiguous(),
        *sampling,
    )
