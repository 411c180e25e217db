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
    dx = torch.empty_like(x) if save else x.new_empty(0)
    if x.shape[0] <= rows:
        losses, dweight, dbias = _block(x, weight, bias, targets, dx, save)
        return losses.sum(dtype=torch.float64).to(x.dtype), dx, dweight, dbias
    # Summed in double: the total keeps float32's precision over any number of rows.
    total = x.new_zeros((), dtype=torch.float64)
    dweight = torch.zeros_like(weight) if save else x.new_empty(0)
    dbias = torch.zeros_like(bias) if save and bias is not None else x.new_empty(0)
    for start in range(0, x.shape[0], rows):
        part = slice(start, start + rows)
        losses, *found = _block(x[part], weight, bias, targets[part], dx[part], save)
        total += losses.sum(dtype=torch.float64)
        if save:
            dweight += found[0]
            dbias += found[1]
    return total.to(x.dtype), dx, dweight, dbias


def _block(
    x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, dx: Tensor, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses by row, and their gradients: by x into dx, by weight and bias returned."""
    logits = F.linear(x, weight, bias)
    losses = torch.ops.charlm_fast_native.cross_entropy_(logits, targets, save)
    if not save:
        return losses, x.new_empty(0), x.new_empty(0)
    torch.mm(logits, weight, out=dx)
    return losses, logits.t() @ x, x.new_empty(0) if bias is None else logits.sum(0)
