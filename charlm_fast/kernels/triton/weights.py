"""What a draw computes of a row of logits before it chooses: x, its weight, u.

Per-row values are vectors beside tiles (rows, columns), or for one row scalars beside vectors; the
formulas and how they round are at the head of draw.py.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def rows_of(block, ROWS: tl.constexpr):  # type: ignore[no-untyped-def]
    """The rows of a block of them, 64 bits; a scalar where it is one."""
    first = block.to(tl.int64) * ROWS
    if ROWS == 1:
        return first
    else:
        return first + tl.arange(0, ROWS)


@triton.jit
def uniform(seed, offset, rows):  # type: ignore[no-untyped-def]
    """The uniforms in [0, 1) of the draws (seed, offset, row), multiples of 2^-53."""
    place = rows * 0 + offset
    first, second, _, _ = tl.philox(
        seed,
        place.to(tl.uint32),
        (place >> 32).to(tl.uint32),
        rows.to(tl.uint32),
        (rows >> 32).to(tl.uint32),
    )
    # 2^-27 and 2^-53
    return (first >> 5).to(tl.float64) * 7.450580596923828125e-09 + (second >> 6).to(
        tl.float64
    ) * 1.1102230246251565404e-16


@triton.jit
def across(v):  # type: ignore[no-untyped-def]
    """Per-row values beside a tile."""
    if len(v.shape) == 0:
        return v
    else:
        return v[:, None]


@triton.jit
def columns(rows, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    if len(rows.shape) == 0:
        return tl.arange(0, COUNT)
    else:
        return tl.arange(0, COUNT)[None, :]


@triton.jit
def load_logits(  # type: ignore[no-untyped-def]
    logits, rows, there, v0, V: tl.constexpr, BLOCK_V: tl.constexpr
):
    """Columns of logits (·, V) from v0 on, -infinity beyond V; of 16-bit ones the exact float32."""
    v = columns(rows, BLOCK_V)
    left = tl.where(there, V - v0 + rows * 0, 0)
    z = tl.load(logits + across(rows * V + v0) + v, mask=v < across(left), other=float("-inf"))
    if z.dtype.primitive_bitwidth < 32:
        z = z.to(tl.float32)
    return z


@triton.jit
def survey(z):  # type: ignore[no-untyped-def]
    """By row, whether the tile holds NaN, and its largest number, float64."""
    nan = tl.max((z != z).to(tl.int32), axis=-1)
    return nan, tl.max(tl.where(z == z, z, float("-inf")), axis=-1).to(tl.float64)


@triton.jit
def base_of(top):  # type: ignore[no-untyped-def]
    """What x counts from; a row without a finite maximum is marked in the end."""
    return tl.where(tl.abs(top) == float("inf"), 0.0, top)


@triton.jit
def scale(z, base, temperature):  # type: ignore[no-untyped-def]
    return (z.to(tl.float64) - across(base)) / across(temperature)


@triton.jit
def scale_closely(z, base, temperature):  # type: ignore[no-untyped-def]
    """The same within 1e-16 of x: for sums, where nothing is compared with x."""
    # The bound keeps 0 * inf out, at temperatures so small that any difference of logits is enough.
    inverse = tl.minimum(1 / temperature, 1e300)
    return (z.to(tl.float64) - across(base)) * across(inverse)


@triton.jit
def exp(x):  # type: ignore[no-untyped-def]
    """e^x in float64 for x in [-700, 0], anything outside.

    2^n 2^f with x log2(e) = n + f: n by the rounding of a sum whose last bit is worth 1, 2^f by its
    interpolation of degree 10 at Chebyshev's nodes, 2^n by adding n to the exponent. 16
    instructions, where the library's, exact to a unit and for all x, takes some 20.
    """
    t = x * 1.4426950408889634
    shifted = t + 6755399441055744.0  # 1.5 * 2^52
    f = t - (shifted - 6755399441055744.0)
    p = 7.070977866508138e-09 * f + 1.0205905413765595e-07
    p = p * f + 1.3215451633221434e-06
    p = p * f + 1.5252672924850737e-05
    p = p * f + 0.00015403530424776529
    p = p * f + 0.0013333558200794592
    p = p * f + 0.009618129107618665
    p = p * f + 0.05550410866465167
    p = p * f + 0.24022650695910075
    p = p * f + 0.6931471805599462
    p = p * f + 1.0
    n = shifted.to(tl.int64, bitcast=True) << 52
    return (p.to(tl.int64, bitcast=True) + n).to(tl.float64, bitcast=True)


@triton.jit
def weigh(x, least):  # type: ignore[no-untyped-def]
    return tl.where(x >= across(least), exp(x), 0.0)


@triton.jit
def cold_as_warm(temperature, u, floor):  # type: ignore[no-untyped-def]
    """(temperature, u, least x). At temperature 0 only the maxima keep weight, and any of it
    exceeds a negative target, so the first of them is drawn."""
    cold = temperature == 0
    return tl.where(cold, 1.0, temperature), tl.where(cold, -1.0, u), tl.where(cold, 0.0, floor)
