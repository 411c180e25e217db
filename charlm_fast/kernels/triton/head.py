"""Linear layer and cross-entropy over blocks of rows, so that large logits never exist whole."""

from __future__ import annotations

import torch
from torch import Tensor

from .matmul import accumulator, product
from .tiling import head_launch

BLOCK_ELEMENTS = 1 << 24  # of logits: 64 MiB in float32, about what a large GPU's L2 holds


def linear_cross_entropy(
    x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, save: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, weight, targets = x.contiguous(), weight.contiguous(), targets.contiguous()
    vocabulary = weight.shape[0]
    rows = max(1, BLOCK_ELEMENTS // max(1, vocabulary))
    wide = accumulator(x.dtype)
    dx = torch.empty_like(x) if save else x.new_empty(0)
    # Blocks add up in the accumulator's type: in 16 bits each sum would round.
    dweight = torch.zeros_like(weight, dtype=wide) if save else x.new_empty(0)
    dbias = weight.new_zeros(vocabulary if save and bias is not None else 0, dtype=wide)
    total = x.new_zeros((), dtype=torch.float64)
    launch = head_launch(vocabulary)
    for start in range(0, x.shape[0], rows):
        part = x[start : start + rows]
        count = part.shape[0]
        logits = product(part, weight.t(), bias)
        gradient = None
        if save:
            gradient = logits if wide == x.dtype else torch.empty_like(logits, dtype=x.dtype)
        losses = logits.new_empty(count)
        with torch.cuda.device_of(x):
            launch.kernel[(-(-count // launch.rows),)](
                logits,
                targets[start : start + rows],
                losses,
                gradient,
                count,
                **launch.meta,
                **launch.options(),
            )
        # Summed in double: the total keeps float32's precision over any number of rows.
        total += losses.sum(dtype=torch.float64)
        if gradient is not None:
            torch.mm(gradient, weight, out=dx[start : start + rows])
            dweight += product(gradient.t(), part)
            if bias is not None:
                dbias += gradient.sum(0, dtype=wide)
    return total.to(x.dtype), dx, dweight.to(x.dtype), dbias.to(x.dtype)
