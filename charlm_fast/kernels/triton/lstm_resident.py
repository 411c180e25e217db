"""One LSTM layer over all steps, for at most 128 units: the recurrent state never leaves registers.

Computes, for step after step, gates = pre + h @ w_hh^T, the cell, and h; and the way back.

Tiling: a program owns BLOCK_B batch rows and all units (HP: units padded to a power of two), and
loops over time. h and c are loop-carried register tiles, so steps need no barrier of ours: Triton
places those that its layout changes want. The next step's inputs are loaded a step ahead.
- 16-bit: BLOCK_B = 16 rows meet tensor cores; all of w_hh sits in registers as dot operands
  (128 KB at H = 128), loaded once for the sequence.
- float32: BLOCK_B = 1, as many programs as rows; products are exact float32 multiply-adds. Two
  of four gates' weights stay in registers (128 KB at H = 128), two stream from L1, where they fit.

Bound by latency: a step at H = 128 is 512 multiply-add cycles in float32 and 1024 of L1 reads,
then two trips through shared memory. One SM works on each program, so the kernel is fastest
while programs are no more than SMs.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .cell_maths import (
    cell_backward,
    cell_forward,
    load_gates,
    load_preactivations,
    step_rows,
    store_gates,
    visited,
)


@triton.jit
def _weights(w, k, n, K: tl.constexpr, N: tl.constexpr, STRIDE: tl.constexpr):  # type: ignore[no-untyped-def]
    mask = (k < K)[:, None] & (n < N)[None, :]
    return tl.load(w + k[:, None] * STRIDE + n[None, :], mask=mask, other=0.0)


@triton.jit
def _product(a, w, acc):  # type: ignore[no-untyped-def]
    """acc (B, N) + a (B, K) @ w (K, N). One row is no work for a tensor core."""
    if a.shape[0] == 1:
        return acc + tl.sum(tl.trans(a) * w, axis=0)[None, :]
    else:
        return tl.dot(a.to(w.dtype), w, acc, input_precision="ieee")


@triton.jit(do_not_specialize=["steps", "batch"])
def lstm_forward_resident(  # type: ignore[no-untyped-def]
    pre,  # (N, 4H) gates before the recurrent product; with ids a table (V, 4H)
    ids,  # (N) or None
    starts,  # (T + 1) first row of each step, or None when all steps have `batch` rows
    h0,  # (B, H)
    c0,  # (B, H)
    w,  # (H, 4H): w_hh transposed
    y,  # (N, H) out
    hn,  # (B, H) out
    cn,  # (B, H) out
    gates,  # (N, 4H) out, or None
    cells,  # (N, H) out, or None
    steps,
    batch,
    H: tl.constexpr,
    HP: tl.constexpr,
    BLOCK_B: tl.constexpr,
    HELD: tl.constexpr,
    REVERSE: tl.constexpr,
):
    b = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B).to(tl.int64)
    n = tl.arange(0, HP)
    inside = (n < H)[None, :]
    valid = (b < batch)[:, None] & inside
    state = b[:, None] * H + n[None, :]
    h = tl.load(h0 + state, mask=valid, other=0.0).to(pre.dtype.element_ty)
    c = tl.load(c0 + state, mask=valid, other=0.0).to(pre.dtype.element_ty)
    w_i = _weights(w, n, n, H, H, 4 * H)
    w_f = _weights(w + H, n, n, H, H, 4 * H)
    if HELD == 4:
        w_g = _weights(w + 2 * H, n, n, H, H, 4 * H)
        w_o = _weights(w + 3 * H, n, n, H, H, 4 * H)

    start, size = step_rows(starts, visited(0, steps, REVERSE), batch)
    p_i, p_f, p_g, p_o = load_preactivations(pre, ids, start, b, n, b < size, H)
    for s in tl.range(0, steps):
        z_i, z_f, z_g, z_o = p_i, p_f, p_g, p_o
        rows = start + b
        active = (b < size)[:, None]
        start, size = step_rows(starts, visited(s + 1, steps, REVERSE), batch)
        p_i, p_f, p_g, p_o = load_preactivations(pre, ids, start, b, n, b < size, H)

        z_i = _product(h, w_i, z_i)
        z_f = _product(h, w_f, z_f)
        if HELD == 4:
            z_g = _product(h, w_g, z_g)
            z_o = _product(h, w_o, z_o)
        else:
            z_g = _product(h, _weights(w + 2 * H, n, n, H, H, 4 * H), z_g)
            z_o = _product(h, _weights(w + 3 * H, n, n, H, H, 4 * H), z_o)
        i, f, g, o, cell, hidden = cell_forward(z_i, z_f, z_g, z_o, c)
        c = tl.where(active, cell, c)
        h = tl.where(active, hidden, h)
        mask = active & inside
        tl.store(y + rows[:, None] * H + n[None, :], hidden, mask=mask)
        if gates is not None:
            store_gates(rows, n, mask, gates, i, f, g, o, H)
            tl.store(cells + rows[:, None] * H + n[None, :], cell, mask=mask)
    tl.store(hn + state, h, mask=valid)
    tl.store(cn + state, c, mask=valid)


@triton.jit
def _load_saved(  # type: ignore[no-untyped-def]
    dy, c0, gates, cells, starts, s, steps, batch, b, n, H: tl.constexpr, REVERSE: tl.constexpr
):
    """All that the way back reads of the s-th step: its rows, gates, cells and dy."""
    start, size = step_rows(starts, visited(s, steps, REVERSE), batch)
    rows = start + b
    inside = (n < H)[None, :]
    mask = (b < size)[:, None] & inside
    i, f, g, o = load_gates(rows, n, mask, gates, H)
    cell = tl.load(cells + rows[:, None] * H + n[None, :], mask=mask, other=0.0)
    start, before_size = step_rows(starts, visited(s - 1, steps, REVERSE), batch)
    carried = (b < before_size) & (s > 0)  # rows that began at this step saw c0
    before = tl.load(
        cells + (start + b)[:, None] * H + n[None, :],
        mask=mask & carried[:, None],
        other=0.0,
    ) + tl.load(
        c0 + b[:, None] * H + n[None, :], mask=mask & (carried[:, None] == 0), other=0.0
    )
    if dy is None:
        d = tl.zeros_like(cell)
    else:
        d = tl.load(dy + rows[:, None] * H + n[None, :], mask=mask, other=0.0)
    return rows, size, i, f, g, o, cell, before, d


@triton.jit(do_not_specialize=["steps", "batch"])
def lstm_backward_resident(  # type: ignore[no-untyped-def]
    dy,  # (N, H) or None
    starts,  # as in the forward
    c0,  # (B, H)
    w,  # (4H, H): w_hh
    gates,  # (N, 4H)
    cells,  # (N, H)
    dgates,  # (N, 4H) out: gradients of the gates before activation
    dh,  # (B, H) in: of h_n, out: of h0; in the accumulator's type
    dc,  # (B, H) in: of c_n, out: of c0
    steps,
    batch,
    H: tl.constexpr,
    HP: tl.constexpr,
    BLOCK_B: tl.constexpr,
    HELD: tl.constexpr,
    REVERSE: tl.constexpr,
):
    b = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B).to(tl.int64)
    n = tl.arange(0, HP)
    inside = (n < H)[None, :]
    valid = (b < batch)[:, None] & inside
    state = b[:, None] * H + n[None, :]
    d_h = tl.load(dh + state, mask=valid, other=0.0)
    d_c = tl.load(dc + state, mask=valid, other=0.0)
    ACC: tl.constexpr = dh.dtype.element_ty
    w_i = _weights(w, n, n, H, H, H)
    w_f = _weights(w + H * H, n, n, H, H, H)
    if HELD == 4:
        w_g = _weights(w + 2 * H * H, n, n, H, H, H)
        w_o = _weights(w + 3 * H * H, n, n, H, H, H)

    n_rows, n_size, n_i, n_f, n_g, n_o, n_cell, n_before, n_dy = _load_saved(
        dy, c0, gates, cells, starts, steps - 1, steps, batch, b, n, H, REVERSE
    )
    for back in tl.range(0, steps):
        rows, size, i, f, g, o = n_rows, n_size, n_i, n_f, n_g, n_o
        cell, before, d_y = n_cell, n_before, n_dy
        s = tl.maximum(steps - 2 - back, 0)
        n_rows, n_size, n_i, n_f, n_g, n_o, n_cell, n_before, n_dy = _load_saved(
            dy, c0, gates, cells, starts, s, steps, batch, b, n, H, REVERSE
        )
        active = (b < size)[:, None]
        d_i, d_f, d_g, d_o, d_before = cell_backward(
            i.to(ACC),
            f.to(ACC),
            g.to(ACC),
            o.to(ACC),
            cell.to(ACC),
            before.to(ACC),
            d_y.to(ACC) + d_h,
            d_c,
        )
        store_gates(rows, n, active & inside, dgates, d_i, d_f, d_g, d_o, H)
        if BLOCK_B == 1:  # sums the products first: one reduction over warps, not four
            product = tl.trans(d_i) * w_i + tl.trans(d_f) * w_f
            product += tl.trans(d_g) * _weights(w + 2 * H * H, n, n, H, H, H)
            product += tl.trans(d_o) * _weights(w + 3 * H * H, n, n, H, H, H)
            d_rec = tl.sum(product, axis=0)[None, :]
        else:
            d_rec = _product(d_i, w_i, tl.zeros_like(d_h))
            d_rec = _product(d_f, w_f, d_rec)
            if HELD == 4:
                d_rec = _product(d_g, w_g, d_rec)
                d_rec = _product(d_o, w_o, d_rec)
            else:
                d_rec = _product(d_g, _weights(w + 2 * H * H, n, n, H, H, H), d_rec)
                d_rec = _product(d_o, _weights(w + 3 * H * H, n, n, H, H, H), d_rec)
        d_h = tl.where(active, d_rec, d_h)
        d_c = tl.where(active, d_before, d_c)
    tl.store(dh + state, d_h, mask=valid)
    tl.store(dc + state, d_c, mask=valid)
