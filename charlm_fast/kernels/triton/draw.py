"""The draw of an id from each of some rows of logits: device code of sampling and generation.

  x = (z - max z) / temperature;  w = exp(x) where the filters keep x, else 0
  id = the first k with w[0] + ... + w[k] > u * sum(w);  logprob = x[id] - log(sum(w))

All in float64, u from the Philox stream of csrc/common/philox.h. Division and subtraction round as
IEEE 754 has it, so x, and with it every comparison with a filter's bound, is the CPU's to the last
bit; exp is off by at most 6e-16 of the largest weight, and sums run in another order. Ids are then
those of the other backends but where u, or the mass above an id at top_p, falls within some 1e-15
of a boundary.

Filters that rank take no sort. The bits of a float, with those of negative ones flipped, order as
integers do, so the largest key above which enough is kept (k ids, or top_p of the weights) is
built bit by bit from the top, each bit with one sum over the row. Ties share a key, and ids whose
logits differ but whose x do not stay together, because what passes on is a bound on x.

Per-row values are vectors beside tiles (rows, columns), or for one row scalars beside vectors: of
a tile with one row Triton may choose a layout that gives every thread all of it.

A row that fits one block stays in registers from its one load to its draw. A longer one is read
from L2 again for each of the passes: the maximum, the sums by block, the block that holds the
draw, and one for each bit of a key.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..sampling import ALL_MINUS_INFINITY, NOT_FINITE, UNDERFLOW
from .weights import across, base_of, cold_as_warm, columns, load_logits, scale, survey, weigh

_UNDERFLOW = tl.constexpr(UNDERFLOW)
_NOT_FINITE = tl.constexpr(NOT_FINITE)
_ALL_MINUS_INFINITY = tl.constexpr(ALL_MINUS_INFINITY)


@triton.jit
def _ordered(z):  # type: ignore[no-untyped-def]
    """Integers in the order of the floats."""
    if z.dtype.primitive_bitwidth == 64:
        bits = z.to(tl.int64, bitcast=True)
        return bits ^ ((bits >> 63) & 0x7FFFFFFFFFFFFFFF)
    else:
        bits = z.to(tl.int32, bitcast=True)
        return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _keyed(measure, key, least):  # type: ignore[no-untyped-def]
    """By row, the measure of the ids whose key is at least so large."""
    return tl.sum(tl.where(key >= across(least), measure, 0), axis=-1)


@triton.jit
def _with_bit(key, bit):  # type: ignore[no-untyped-def]
    """A key with one more bit set; the sign counts the other way round."""
    return key ^ ((key * 0 + 1) << bit)


@triton.jit
def _threshold(measure, key, target, LOW: tl.constexpr):  # type: ignore[no-untyped-def]
    """By row, the largest key at or above which the measures reach the target."""
    BITS: tl.constexpr = key.dtype.primitive_bitwidth
    found = (tl.min(key, axis=-1) * 0 + 1) << (BITS - 1)  # the smallest integer
    for j in tl.range(0, BITS - LOW):
        candidate = _with_bit(found, BITS - 1 - j)
        found = tl.where(_keyed(measure, key, candidate) >= target, candidate, found)
    return found


@triton.jit
def _rank_floor(  # type: ignore[no-untyped-def]
    z, x, floor, top_k, top_p, TOP_K: tl.constexpr, TOP_P: tl.constexpr, LOW: tl.constexpr
):
    """By row, the least x of at least `floor` that top_k, then top_p keep."""
    key = _ordered(z)
    if TOP_K:
        bound = _threshold((z == z).to(tl.int32), key, top_k, LOW)
        kth = tl.min(tl.where(key >= across(bound), x, float("inf")), axis=-1)
        floor = tl.maximum(floor, kth)
    if TOP_P:
        w = weigh(x, floor)
        bound = _threshold(w, key, top_p * tl.sum(w, axis=-1), LOW)
        kept = (key >= across(bound)) & (w > 0)
        floor = tl.maximum(floor, tl.min(tl.where(kept, x, float("inf")), axis=-1))
    return floor


@triton.jit
def find(w, x, before, target):  # type: ignore[no-untyped-def]
    """(k, x[k]) of the first k of a tile where `before` and the running sum of w exceed target.

    Rounding may leave no such sum: then the last k of any weight."""
    COUNT: tl.constexpr = w.shape[-1]
    k = columns(target, COUNT)
    running = across(before) + tl.cumsum(w, axis=-1)
    hit = (running > across(target)) & (w > 0)
    first = tl.min(tl.where(hit, k, COUNT), axis=-1)
    last = tl.max(tl.where(w > 0, k, 0), axis=-1)
    found = tl.where(first < COUNT, first, last)
    return found, tl.sum(tl.where(k == across(found), x, 0.0), axis=-1)


@triton.jit
def find_block(sums, target):  # type: ignore[no-untyped-def]
    """The block of a row to look in, and the sum of those before it."""
    COUNT: tl.constexpr = sums.shape[-1]
    k = columns(target, COUNT)
    hit = (tl.cumsum(sums, axis=-1) > across(target)) & (sums > 0)
    first = tl.min(tl.where(hit, k, COUNT), axis=-1)
    last = tl.max(tl.where(sums > 0, k, 0), axis=-1)
    found = tl.where(first < COUNT, first, last)
    return found, tl.sum(tl.where(k < across(found), sums, 0.0), axis=-1)


@triton.jit
def concluded(id, x, total, temperature, nan, top):  # type: ignore[no-untyped-def]
    """The id or the mark that tells why there is none, and the log-probability."""
    id = tl.where(top == float("-inf"), _ALL_MINUS_INFINITY, id.to(tl.int64))
    id = tl.where((nan > 0) | (top == float("inf")), _NOT_FINITE, id)
    certain = (id < 0) | (temperature == 0)
    return id, tl.where(certain, 0.0, x - tl.log(tl.where(certain, 1.0, total)))


@triton.jit
def _draw_whole(  # type: ignore[no-untyped-def]
    logits,
    rows,
    there,
    temperature,
    u,
    top_k,
    top_p,
    floor,
    V: tl.constexpr,
    BLOCK_V: tl.constexpr,
    TOP_K: tl.constexpr,
    TOP_P: tl.constexpr,
    LOW: tl.constexpr,
):
    z = load_logits(logits, rows, there, 0, V, BLOCK_V)
    nan, top = survey(z)
    warm, u, least = cold_as_warm(temperature, u, floor)
    x = scale(z, base_of(top), warm)
    if TOP_K or TOP_P:
        ranked = warm * 0 + _UNDERFLOW
        ranked = _rank_floor(z, x, ranked, top_k, top_p, TOP_K, TOP_P, LOW)
        least = tl.maximum(least, ranked)
    w = weigh(x, least)
    total = tl.sum(w, axis=-1)
    id, chosen = find(w, x, tl.zeros_like(total), u * total)
    return concluded(id, chosen, total, temperature, nan, top)


@triton.jit
def _long_threshold(  # type: ignore[no-untyped-def]
    logits,
    rows,
    there,
    base,
    warm,
    floor,
    target,
    V: tl.constexpr,
    BLOCK_V: tl.constexpr,
    COUNTS: tl.constexpr,
    LOW: tl.constexpr,
):
    """The least x that is kept of a long row, and whether ids or weights shall reach the target."""
    WIDE: tl.constexpr = logits.dtype.element_ty.primitive_bitwidth == 64
    KEY: tl.constexpr = tl.int64 if WIDE else tl.int32
    BITS: tl.constexpr = 64 if WIDE else 32
    found = (rows * 0 + 1).to(KEY) << (BITS - 1)
    for j in tl.range(0, BITS - LOW):
        candidate = _with_bit(found, BITS - 1 - j)
        above = tl.zeros_like(target)
        for v0 in tl.range(0, V, BLOCK_V):
            z = load_logits(logits, rows, there, v0, V, BLOCK_V)
            if COUNTS:
                above += _keyed((z == z).to(tl.int32), _ordered(z), candidate)
            else:
                above += _keyed(weigh(scale(z, base, warm), floor), _ordered(z), candidate)
        found = tl.where(above >= target, candidate, found)
    bound = warm * 0 + float("inf")
    for v0 in tl.range(0, V, BLOCK_V):
        z = load_logits(logits, rows, there, v0, V, BLOCK_V)
        x = scale(z, base, warm)
        kept = (_ordered(z) >= across(found)) & (x >= across(floor))
        bound = tl.minimum(bound, tl.min(tl.where(kept, x, float("inf")), axis=-1))
    return tl.maximum(floor, bound)


@triton.jit
def _long_sums(  # type: ignore[no-untyped-def]
    logits, rows, there, base, warm, least, V: tl.constexpr, BLOCK_V: tl.constexpr
):
    """Weights of a long row by block, (ROWS, blocks)."""
    BLOCKS: tl.constexpr = triton.next_power_of_2((V + BLOCK_V - 1) // BLOCK_V)
    block = columns(rows, BLOCKS)
    sums = tl.where(block < 0, across(base), 0.0)
    for v0 in tl.range(0, V, BLOCK_V):
        z = load_logits(logits, rows, there, v0, V, BLOCK_V)
        here = tl.sum(weigh(scale(z, base, warm), least), axis=-1)
        sums = tl.where(block == v0 // BLOCK_V, across(here), sums)
    return sums


@triton.jit
def _draw_long(  # type: ignore[no-untyped-def]
    logits,
    rows,
    there,
    temperature,
    u,
    top_k,
    top_p,
    floor,
    V: tl.constexpr,
    BLOCK_V: tl.constexpr,
    TOP_K: tl.constexpr,
    TOP_P: tl.constexpr,
    LOW: tl.constexpr,
):
    warm, u, least = cold_as_warm(temperature, u, floor)
    nan = (rows * 0).to(tl.int32)
    top = warm * 0 + float("-inf")
    for v0 in tl.range(0, V, BLOCK_V):
        z = load_logits(logits, rows, there, v0, V, BLOCK_V)
        nan_here, top_here = survey(z)
        nan |= nan_here
        top = tl.maximum(top, top_here)
    base = base_of(top)
    if TOP_K or TOP_P:
        ranked = warm * 0 + _UNDERFLOW
        if TOP_K:
            k = nan * 0 + top_k
            ranked = _long_threshold(
                logits, rows, there, base, warm, ranked, k, V, BLOCK_V, True, LOW
            )
        if TOP_P:
            total = tl.sum(_long_sums(logits, rows, there, base, warm, ranked, V, BLOCK_V), axis=-1)
            ranked = _long_threshold(
                logits, rows, there, base, warm, ranked, top_p * total, V, BLOCK_V, False, LOW
            )
        least = tl.maximum(least, ranked)
    sums = _long_sums(logits, rows, there, base, warm, least, V, BLOCK_V)
    total = tl.sum(sums, axis=-1)
    block, before = find_block(sums, u * total)
    z = load_logits(logits, rows, there, block * BLOCK_V, V, BLOCK_V)
    x = scale(z, base, warm)
    id, chosen = find(weigh(x, least), x, before, u * total)
    return concluded(block * BLOCK_V + id, chosen, total, temperature, nan, top)


@triton.jit
def draw(  # type: ignore[no-untyped-def]
    logits,  # (·, V)
    rows,  # (ROWS) of them, int64
    there,  # (ROWS) whether a row exists
    temperature,  # (ROWS) float64
    u,  # (ROWS) float64
    top_k,
    top_p,
    floor,  # at least UNDERFLOW
    V: tl.constexpr,
    BLOCK_V: tl.constexpr,
    TOP_K: tl.constexpr,  # whether each filter is on
    TOP_P: tl.constexpr,
    LOW: tl.constexpr,  # how many low bits of a key tell no two logits apart
):
    """(ids, log-probabilities in float64) of the rows."""
    if V <= BLOCK_V:
        return _draw_whole(
            logits, rows, there, temperature, u, top_k, top_p, floor, V, BLOCK_V, TOP_K, TOP_P, LOW
        )
    else:
        return _draw_long(
            logits, rows, there, temperature, u, top_k, top_p, floor, V, BLOCK_V, TOP_K, TOP_P, LOW
        )
