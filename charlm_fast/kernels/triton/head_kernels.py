"""Cross-entropy of rows of logits, and its gradient in their place.

Computes per row lse = log(sum(exp(logits))), the loss lse - logits[target], and, asked for the
gradient, softmax(logits) - onehot(target).

Tiling: a program takes ROWS rows, and walks their columns in blocks of BLOCK_V: once with an
online maximum and sum, a second time for the gradient, which reads from L2 what the first brought
there. Bound by memory: one read and, with the gradient, one write of the logits.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["count"])
def cross_entropy(  # type: ignore[no-untyped-def]
    logits,  # (count, V) in the accumulator's type
    targets,  # (count)
    losses,  # (count) out
    gradient,  # (count, V) out, may be logits itself; or None
    count,
    V: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    there = rows < count
    target = tl.load(targets + rows, mask=there, other=0)
    ACC: tl.constexpr = logits.dtype.element_ty
    top = tl.full([ROWS], float("-inf"), ACC)
    total = tl.zeros([ROWS], ACC)
    hit = tl.zeros([ROWS], ACC)
    for v0 in tl.range(0, V, BLOCK_V):
        v = v0 + tl.arange(0, BLOCK_V)
        mask = there[:, None] & (v < V)[None, :]
        z = tl.load(logits + rows[:, None] * V + v[None, :], mask=mask, other=0.0)
        z = tl.where((v < V)[None, :], z, float("-inf"))
        new_top = tl.maximum(top, tl.max(z, axis=1))
        base = tl.where(new_top == float("-inf"), 0.0, new_top)  # -inf - -inf is no number
        total = total * tl.exp(top - base) + tl.sum(tl.exp(z - base[:, None]), axis=1)
        hit += tl.sum(tl.where(v[None, :] == target[:, None], z, 0.0), axis=1)
        top = new_top
    tl.store(losses + rows, top + tl.log(total) - hit, mask=there)
    if gradient is not None:
        scale = 1 / total
        for v0 in tl.range(0, V, BLOCK_V):
            v = v0 + tl.arange(0, BLOCK_V)
            mask = there[:, None] & (v < V)[None, :]
            z = tl.load(logits + rows[:, None] * V + v[None, :], mask=mask, other=0.0)
            p = tl.exp(z - top[:, None]) * scale[:, None]
            p = tl.where(v[None, :] == target[:, None], p - 1, p)
            tl.debug_barrier()  # in place: two threads may have loaded what one of them stores
            tl.store(gradient + rows[:, None] * V + v[None, :], p, mask=mask)
