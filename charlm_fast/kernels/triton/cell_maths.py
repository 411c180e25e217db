"""What the LSTM kernels share: activations, the cell in both directions, the rows of a step."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def sigmoid(x):  # type: ignore[no-untyped-def]
    return 1 / (1 + tl.exp(-x))  # exp overflows to inf below -88, and 1 / inf is the answer


@triton.jit
def tanh(x, EXACT: tl.constexpr):  # type: ignore[no-untyped-def]
    if EXACT:
        # Cephes: near zero exp would cancel, so a rational function that serves float64 as well.
        z = x * x
        p = (-9.64399179425052238628e-1 * z - 9.92877231001918586564e1) * z
        p -= 1.61468768441708447952e3
        q = ((z + 1.12811678491631932402e2) * z + 2.23548839060100448583e3) * z
        q += 4.84406305325125486048e3
        near = x + x * z * (p / q)
        e = tl.exp(-2 * tl.abs(x))
        far = (1 - e) / (1 + e)
        return tl.where(tl.abs(x) < 0.625, near, tl.where(x < 0, -far, far))
    else:
        return 2 * sigmoid(2 * x) - 1  # off by 1e-7: 16-bit results round far more


@triton.jit
def cell_forward(z_i, z_f, z_g, z_o, c, EXACT: tl.constexpr):  # type: ignore[no-untyped-def]
    """(i, f, g, o, cell, hidden) from the gates before activation and the cell before."""
    i = sigmoid(z_i)
    f = sigmoid(z_f)
    g = tanh(z_g, EXACT)
    o = sigmoid(z_o)
    cell = f * c + i * g
    return i, f, g, o, cell, o * tanh(cell, EXACT)


@triton.jit
def cell_backward(  # type: ignore[no-untyped-def]
    i, f, g, o, cell, before, dhidden, dcell, EXACT: tl.constexpr
):
    """Gradients of the four gates before activation, and of the cell before."""
    squashed = tanh(cell, EXACT)
    d = dcell + dhidden * o * (1 - squashed * squashed)
    d_i = d * g * i * (1 - i)
    d_f = d * before * f * (1 - f)
    d_g = d * i * (1 - g * g)
    d_o = dhidden * squashed * o * (1 - o)
    return d_i, d_f, d_g, d_o, d * f


@triton.jit
def visited(s, steps, REVERSE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Which step the forward visits as its s-th; the nearest one where s is outside."""
    s = tl.minimum(tl.maximum(s, 0), steps - 1)
    return steps - 1 - s if REVERSE else s


@triton.jit
def step_rows(starts, t, batch):  # type: ignore[no-untyped-def]
    """(first row, number of rows) of step t; 64 bits, since rows * 4H may pass 2^31."""
    if starts is None:
        start = t * batch.to(tl.int64)
        size = batch.to(tl.int64)
    else:
        start = tl.load(starts + t)
        size = tl.load(starts + t + 1) - start
    return start, size


@triton.jit
def load_gates(p, at, mask, H: tl.constexpr):  # type: ignore[no-untyped-def]
    """The four gates' tiles of p (·, 4H), whose first is at the offsets `at`."""
    i = tl.load(p + at, mask=mask, other=0.0)
    f = tl.load(p + at + H, mask=mask, other=0.0)
    g = tl.load(p + at + 2 * H, mask=mask, other=0.0)
    o = tl.load(p + at + 3 * H, mask=mask, other=0.0)
    return i, f, g, o


@triton.jit
def store_gates(p, at, mask, i, f, g, o, H: tl.constexpr):  # type: ignore[no-untyped-def]
    tl.store(p + at, i, mask=mask)
    tl.store(p + at + H, f, mask=mask)
    tl.store(p + at + 2 * H, g, mask=mask)
    tl.store(p + at + 3 * H, o, mask=mask)
