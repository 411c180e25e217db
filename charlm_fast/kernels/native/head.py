"""Linear layer and cross-entropy over blocks of rows, so that large logits never exist whole."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Elements of a block of logits. On the CPU about one core's L2 in float32; on a GPU enough rows
# to fill the machine, in tens of megabytes.
BLOCK_ELEMENTS = {"cpu": 1 << 18, "cuda": 1 << 24}


def linear_cross_entropy(
    x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, save: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, weight, targets = x.contiguous(), weight.contiguous(), targets.contiguous()
    # Never a row alone: BLAS sums a matrix-vector product over V in one float32 chain.
    rows = max(16, BLOCK_ELEMENTS[x.device.type] // weight.shape[0])
    losses = []
    dx = torch.empty_like(x) if save else x.new_empty(0)
    dweight = torch.zeros_like(weight) if save else x.new_empty(0)
    dbias = torch.zeros_like(bias) if save and bias is not None else x.new_empty(0)
    for start in range(0, x.shape[0], rows):
        part = x[start : start + rows]
        logits = F.linear(part, weight, bias)
        target = targets[start : start + rows]
        losses.append(torch.ops.charlm_fast_native.cross_entropy_(logits, target, save))
        if save:
            torch.mm(logits, weight, out=dx[start : start + rows])
            dweight.addmm_(logits.t(), part)
            if bias is not None:
                dbias.add_(logits.sum(0))
    # Summed in double: the total keeps float32's precision over any number of rows.
    total = sum(
        (loss.sum(dtype=torch.float64) for loss in losses), x.new_zeros((), dtype=torch.float64)
    )
    return total.to(x.dtype), dx, dweight, dbias
