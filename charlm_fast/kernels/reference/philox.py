"""Philox4x32-10 (Salmon et al., SC 2011) on int64 tensors; csrc/common/philox.h has the stream."""

from __future__ import annotations

import torch
from torch import Tensor

_LOW = 0xFFFFFFFF


def philox(seed: int, offset: int, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four 32-bit words of the draws (seed, offset, row), as int64 like ``rows``."""
    c0 = torch.full_like(rows, offset & _LOW)
    c1 = torch.full_like(rows, (offset >> 32) & _LOW)
    c2, c3 = rows & _LOW, (rows >> 32) & _LOW
    k0, k1 = seed & _LOW, (seed >> 32) & _LOW
    for _ in range(10):
        # Products wrap around in int64 as in 64 bits without a sign; masks take the halves.
        a, b = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1 = ((b >> 32) & _LOW) ^ c1 ^ k0, b & _LOW
        c2, c3 = ((a >> 32) & _LOW) ^ c3 ^ k1, a & _LOW
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    return c0, c1, c2, c3


def uniform(seed: int, offset: int, rows: Tensor) -> Tensor:
    """The draws' uniforms in [0, 1), float64, multiples of 2^-53."""
    first, second, _, _ = philox(seed, offset, rows)
    return (first >> 5).double() * 2.0**-27 + (second >> 6).double() * 2.0**-53
