"""Linear layer and cross-entropy over blocks of rows, one call."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_cross_entropy(
    x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, save: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.ops.charlm_fast_native.linear_cross_entropy(
        x.contiguous(),
        weight.contiguous(),
        None if bias is None else bias.contiguous(),
        targets.contiguous(),
        save,
    )
