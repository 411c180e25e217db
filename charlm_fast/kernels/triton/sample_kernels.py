"""Sampling from rows of logits; draw.py has the draw and its exactness.

`sample_rows` takes ROWS rows a program, with any filters. Where a row fits BLOCK_V, it is read
once and stays in registers: at V = 100 a program of 4 warps draws 32 rows, and float64 exponentials
and divisions (about 30 instructions a logit at half float32's rate) bound it.

`sample_spans` and `sample_pick` take long rows without filters in two launches, so that one row
keeps many SMs busy and is read once: a program of the first reduces one span of a row to its
maximum and the sum of its weights against that maximum; a program of the second joins the spans of
a row in their order, always the same, and looks for the draw in one of them. Bound by memory and,
nearly as tightly, by float64: at V = 131,072 in float32 4 bytes against about 30 instructions.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..sampling import UNDERFLOW
from .draw import concluded, draw, find, find_block
from .weights import (
    across,
    base_of,
    cold_as_warm,
    columns,
    load_logits,
    rows_of,
    scale,
    scale_closely,
    survey,
    uniform,
    weigh,
)

_UNDERFLOW = tl.constexpr(UNDERFLOW)


@triton.jit(do_not_specialize=["count", "top_k", "top_p", "floor", "seed", "offset"])
def sample_rows(  # type: ignore[no-untyped-def]
    logits,  # (count, V)
    temperature,  # (count) float64
    ids,  # (count) out
    logprobs,  # (count) out
    count,
    top_k: tl.int32,
    top_p: tl.float64,
    floor: tl.float64,
    seed: tl.int64,
    offset: tl.int64,
    V: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_V: tl.constexpr,
    TOP_K: tl.constexpr,
    TOP_P: tl.constexpr,
    LOW: tl.constexpr,
):
    rows = rows_of(tl.program_id(0), ROWS)
    there = rows < count
    t = tl.load(temperature + rows, mask=there, other=1.0)
    u = uniform(seed, offset.to(tl.int64), rows)
    id, logprob = draw(
        logits, rows, there, t, u, top_k, top_p, floor, V, BLOCK_V, TOP_K, TOP_P, LOW
    )
    tl.store(ids + rows, id, mask=there)
    tl.store(logprobs + rows, logprob, mask=there)


@triton.jit(do_not_specialize=["count"])
def sample_spans(  # type: ignore[no-untyped-def]
    logits,  # (count, V)
    temperature,  # (count) float64
    tops,  # (count, spans) float64 out
    sums,  # (count, spans) float64 out; NaN where the span holds NaN
    count,
    V: tl.constexpr,
    SPANS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    span = tl.program_id(0) % SPANS
    rows = rows_of(tl.program_id(0) // SPANS, ROWS)
    there = rows < count
    t = tl.load(temperature + rows, mask=there, other=1.0)
    z = load_logits(logits, rows, there, span * BLOCK_V, V, BLOCK_V)
    nan, top = survey(z)
    # What is left out against the maximum of the span weighs nothing against that of the row.
    warm, _, least = cold_as_warm(t, t, _UNDERFLOW)
    total = tl.sum(weigh(scale_closely(z, base_of(top), warm), least), axis=-1)
    tl.store(tops + rows * SPANS + span, top, mask=there)
    tl.store(sums + rows * SPANS + span, tl.where(nan > 0, float("nan"), total), mask=there)


@triton.jit(do_not_specialize=["count", "seed", "offset"])
def sample_pick(  # type: ignore[no-untyped-def]
    logits,  # (count, V)
    temperature,  # (count) float64
    tops,  # (count, spans) float64
    sums,  # (count, spans) float64
    ids,  # (count) out
    logprobs,  # (count) out
    count,
    seed: tl.int64,
    offset: tl.int64,
    V: tl.constexpr,
    SPANS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    rows = rows_of(tl.program_id(0), ROWS)
    there = rows < count
    t = tl.load(temperature + rows, mask=there, other=1.0)
    warm, u, least = cold_as_warm(t, uniform(seed, offset.to(tl.int64), rows), _UNDERFLOW)
    span = columns(rows, triton.next_power_of_2(SPANS))
    at = across(rows * SPANS) + span
    mask = (across(there) & (span < SPANS)) != 0  # an integer in the interpreter of Triton 3.9
    span_tops = tl.load(tops + at, mask=mask, other=float("-inf"))
    span_sums = tl.load(sums + at, mask=mask, other=0.0)
    nan, _ = survey(span_sums)
    top = tl.max(span_tops, axis=-1)
    base = base_of(top)
    # weigh is 0 where a span has nothing, so that 0 * its NaN of infinities cannot arise
    weights = weigh(scale(span_tops, base, warm), least)
    weights = tl.where(weights > 0, weights * span_sums, 0.0)
    total = tl.sum(weights, axis=-1)
    block, before = find_block(weights, u * total)
    z = load_logits(logits, rows, there, block * BLOCK_V, V, BLOCK_V)
    x = scale(z, base, warm)
    id, chosen = find(weigh(x, least), x, before, u * total)
    id, logprob = concluded(block * BLOCK_V + id, chosen, total, t, nan, top)
    tl.store(ids + rows, id, mask=there)
    tl.store(logprobs + rows, logprob, mask=there)
