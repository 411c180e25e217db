"""Products over all rows, through torch, with results in the accumulator's type."""

from __future__ import annotations

import torch
from torch import Tensor


def accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a @ b + bias; of 16-bit inputs unrounded in float32."""
    if accumulator(a.dtype) == a.dtype:
        return a @ b if bias is None else torch.addmm(bias, a, b)
    # torch has that product for CUDA only; elsewhere there is only the interpreter to serve.
    out = torch.mm(a, b, out_dtype=torch.float32) if a.is_cuda else a.float() @ b.float()
    return out if bias is None else out.add_(bias)
