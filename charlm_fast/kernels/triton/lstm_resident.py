"""One LSTM layer over all steps, 16 bits, at most 128 units: weights and state stay on chip.

Computes, for step after step, gates = pre + w_hh @ h, the cell, and h; and the way back.

Tiling: a program owns BLOCK_B = 8 batch rows and all units (HP: units padded to a power of
two), and loops over time. Tiles are (units, rows): units fill the tall side of the tensor cores,
so 8 rows need no padding. Triton keeps dot operands that a loop does not change in shared memory,
so w_hh (128 KB at H = 128) is loaded once for the sequence; on sm_100 Triton 3.9 holds it in
registers and writes it to shared memory at each step. h and c are loop-carried register tiles: no
value passes through global memory from step to step, so steps need no barrier of ours; Triton
places those that its layout changes want. Inputs are loaded a step ahead.

Bound by latency: at H = 128 a step reads 128 KB of shared memory (1024 cycles) and then computes
BLOCK_B * 128 cells. One SM works on each program, so time is flat until programs outnumber SMs.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .cell_maths import cell_backward, cell_forward, load_gates, step_rows, store_gates, visited


@triton.jit
def _weights(w, k, n, SIZE: tl.constexpr, STRIDE: tl.constexpr):  # type: ignore[no-untyped-def]
    mask = (k < SIZE)[:, None] & (n < SIZE)[None, :]
    return tl.load(w + k[:, None] * STRIDE + n[None, :], mask=mask, other=0.0)


@triton.jit
def _product(w, a, acc):  # type: ignore[no-untyped-def]
    """acc (N, B) + w (K, N)^T @ a (K, B)."""
    return tl.dot(tl.trans(w), a.to(w.dtype), acc)


@triton.jit
def _load_inputs(  # type: ignore[no-untyped-def]
    pre, ids, starts, s, steps, batch, b, n, H: tl.constexpr, REVERSE: tl.constexpr
):
    """Of the s-th step visited: each batch row's row, whether it has one, and its gate inputs."""
    start, size = step_rows(starts, visited(s, steps, REVERSE), batch)
    active = b < size
    rows = start + b
    from_rows = rows
    if ids is not None:
        from_rows = tl.load(ids + rows, mask=active, other=0)
    at = from_rows[None, :] * (4 * H) + n[:, None]
    i, f, g, o = load_gates(pre, at, active[None, :] & (n < H)[:, None], H)
    return rows, active, i, f, g, o


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
    REVERSE: tl.constexpr,
):
    b = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B).to(tl.int64)
    n = tl.arange(0, HP)
    inside = (n < H)[:, None]
    valid = (b < batch)[None, :] & inside
    state = b[None, :] * H + n[:, None]
    h = tl.load(h0 + state, mask=valid, other=0.0).to(pre.dtype.element_ty)
    c = tl.load(c0 + state, mask=valid, other=0.0).to(pre.dtype.element_ty)
    w_i = _weights(w, n, n, H, 4 * H)
    w_f = _weights(w + H, n, n, H, 4 * H)
    w_g = _weights(w + 2 * H, n, n, H, 4 * H)
    w_o = _weights(w + 3 * H, n, n, H, 4 * H)

    n_rows, n_active, p_i, p_f, p_g, p_o = _load_inputs(
        pre, ids, starts, 0, steps, batch, b, n, H, REVERSE
    )
    for s in tl.range(0, steps):
        rows, active, z_i, z_f, z_g, z_o = n_rows, n_active[None, :], p_i, p_f, p_g, p_o
        n_rows, n_active, p_i, p_f, p_g, p_o = _load_inputs(
            pre, ids, starts, s + 1, steps, batch, b, n, H, REVERSE
        )
        z_i = _product(w_i, h, z_i)
        z_f = _product(w_f, h, z_f)
        z_g = _product(w_g, h, z_g)
        z_o = _product(w_o, h, z_o)
        i, f, g, o, cell, hidden = cell_forward(z_i, z_f, z_g, z_o, c, False)
        c = tl.where(active, cell, c)
        h = tl.where(active, hidden, h)
        mask = active & inside
        tl.store(y + rows[None, :] * H + n[:, None], hidden, mask=mask)
        if gates is not None:
            store_gates(gates, rows[None, :] * (4 * H) + n[:, None], mask, i, f, g, o, H)
            tl.store(cells + rows[None, :] * H + n[:, None], cell, mask=mask)
    tl.store(hn + state, h, mask=valid)
    tl.store(cn + state, c, mask=valid)


@triton.jit
def _load_saved(  # type: ignore[no-untyped-def]
    dy, c0, gates, cells, starts, s, steps, batch, b, n, H: tl.constexpr, REVERSE: tl.constexpr
):
    """All that the way back reads of the s-th step: its rows, gates, cells and dy."""
    start, size = step_rows(starts, visited(s, steps, REVERSE), batch)
    rows = start + b
    inside = (n < H)[:, None]
    mask = (b < size)[None, :] & inside
    i, f, g, o = load_gates(gates, rows[None, :] * (4 * H) + n[:, None], mask, H)
    cell = tl.load(cells + rows[None, :] * H + n[:, None], mask=mask, other=0.0)
    start, before_size = step_rows(starts, visited(s - 1, steps, REVERSE), batch)
    before_size = before_size * (s > 0)  # rows that began at this step saw c0
    before = tl.load(
        cells + (start + b)[None, :] * H + n[:, None],
        mask=mask & (b < before_size)[None, :],
        other=0.0,
    ) + tl.load(
        c0 + b[None, :] * H + n[:, None], mask=mask & (b >= before_size)[None, :], other=0.0
    )
    d = tl.zeros_like(cell)
    if dy is not None:
        d = tl.load(dy + rows[None, :] * H + n[:, None], mask=mask, other=0.0)
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
    REVERSE: tl.constexpr,
):
    b = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B).to(tl.int64)
    n = tl.arange(0, HP)
    inside = (n < H)[:, None]
    valid = (b < batch)[None, :] & inside
    state = b[None, :] * H + n[:, None]
    d_h = tl.load(dh + state, mask=valid, other=0.0)
    d_c = tl.load(dc + state, mask=valid, other=0.0)
    ACC: tl.constexpr = dh.dtype.element_ty
    w_i = _weights(w, n, n, H, H)
    w_f = _weights(w + H * H, n, n, H, H)
    w_g = _weights(w + 2 * H * H, n, n, H, H)
    w_o = _weights(w + 3 * H * H, n, n, H, H)

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
        active = (b < size)[None, :]
        d_i, d_f, d_g, d_o, d_before = cell_backward(
            i.to(ACC),
            f.to(ACC),
            g.to(ACC),
            o.to(ACC),
            cell.to(ACC),
            before.to(ACC),
            d_y.to(ACC) + d_h,
            d_c,
            False,
        )
        at = rows[None, :] * (4 * H) + n[:, None]
        store_gates(dgates, at, active & inside, d_i, d_f, d_g, d_o, H)
        d_rec = _product(w_i, d_i, tl.zeros_like(d_h))
        d_rec = _product(w_f, d_f, d_rec)
        d_rec = _product(w_g, d_g, d_rec)
        d_rec = _product(w_o, d_o, d_rec)
        d_h = tl.where(active, d_rec, d_h)
        d_c = tl.where(active, d_before, d_c)
    tl.store(dh + state, d_h, mask=valid)
    tl.store(dc + state, d_c, mask=valid)
