"""One LSTM layer over all steps for one batch row a program: matrix-vector products, exact.

Computes, for step after step, gates = pre + w_hh @ h, the cell, and h; and the way back.

Tiling: a program owns one batch row and all units (HP: units padded to a power of two), and loops
over time. A step's product walks its depth in blocks of BLOCK_K: each thread multiplies its own
columns' weights by one h a depth, and one sum over the depth at the end joins the threads. The
first HELD blocks of weights stay in registers for the whole sequence, the others stream from L1
or L2. h passes from step to step through its row of y (the way back: through dgates), with a
barrier: the product wants it spread over threads otherwise than the cell does, and left to choose,
Triton computes the cell once for each of the two. Inputs are loaded a step ahead.

Bound by latency and by the weights' stream: in float32 at H = 128 half of w_hh's 256 KB is held
and half comes from L1 (1024 cycles a step); at H = 256 1 MB comes from L2 at about 64 bytes a
cycle, 9 us a step. One SM works on each program: time is flat until programs outnumber SMs.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .cell_maths import cell_backward, cell_forward, load_gates, step_rows, store_gates, visited


@triton.jit
def _product(  # type: ignore[no-untyped-def]
    w, held, a, active, col, there, K: tl.constexpr, STRIDE: tl.constexpr, BLOCK_K: tl.constexpr
):
    """a (K) @ w (K, ·)[:, col], its first blocks of depth from `held`."""
    k = tl.arange(0, BLOCK_K)
    depth = tl.where(active, K, 0)
    acc = tl.zeros([BLOCK_K, col.shape[0]], w.dtype.element_ty)
    for j in tl.static_range(len(held)):
        at = j * BLOCK_K + k
        acc += held[j] * tl.load(a + at, mask=at < depth, other=0.0)[:, None]
    for k0 in tl.range(len(held) * BLOCK_K, K, BLOCK_K, loop_unroll_factor=2):
        at = k0 + k
        values = tl.load(a + at, mask=at < depth, other=0.0)
        acc += _weights(w, at, col, there, K, STRIDE) * values[:, None]
    return tl.sum(acc, axis=0)


@triton.jit
def _weights(w, k, col, there, K: tl.constexpr, STRIDE: tl.constexpr):  # type: ignore[no-untyped-def]
    return tl.load(
        w + k[:, None] * STRIDE + col[None, :], mask=(k < K)[:, None] & there[None, :], other=0.0
    )


@triton.jit
def _hold(  # type: ignore[no-untyped-def]
    w,
    col,
    there,
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HELD: tl.constexpr,
):
    held = ()
    for j in tl.static_range(HELD):
        k = j * BLOCK_K + tl.arange(0, BLOCK_K)
        held = held + (_weights(w, k, col, there, K, STRIDE),)  # type: ignore[assignment]
    return held


@triton.jit
def _load_inputs(  # type: ignore[no-untyped-def]
    pre, ids, starts, s, steps, batch, b, n, H: tl.constexpr, REVERSE: tl.constexpr
):
    """Of the s-th step visited: the batch row's row, whether it has one, and its gate inputs."""
    start, size = step_rows(starts, visited(s, steps, REVERSE), batch)
    active = b < size
    row = start + b
    from_row = row
    if ids is not None:
        from_row = tl.load(ids + row, mask=active, other=0)
    i, f, g, o = load_gates(pre, from_row * (4 * H) + n, n < tl.where(active, H, 0), H)
    return row, active, i, f, g, o


@triton.jit(do_not_specialize=["steps", "batch"])
def lstm_forward_row(  # type: ignore[no-untyped-def]
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
    BLOCK_K: tl.constexpr,
    HELD: tl.constexpr,
    REVERSE: tl.constexpr,
):
    b = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, HP)
    inside = n < H
    # All four gates side by side, each padded to HP columns, so that one sum serves them.
    m = tl.arange(0, 4 * HP)
    col = (m // HP) * H + m % HP
    there = (m % HP) < H
    held = _hold(w, col, there, H, 4 * H, BLOCK_K, HELD)
    h = tl.load(h0 + b * H + n, mask=inside, other=0.0)
    c = tl.load(c0 + b * H + n, mask=inside, other=0.0)
    before = h0 + b * H
    n_row, n_active, p_i, p_f, p_g, p_o = _load_inputs(
        pre, ids, starts, 0, steps, batch, b, n, H, REVERSE
    )
    for s in tl.range(0, steps):
        row, active, z_i, z_f, z_g, z_o = n_row, n_active, p_i, p_f, p_g, p_o
        n_row, n_active, p_i, p_f, p_g, p_o = _load_inputs(
            pre, ids, starts, s + 1, steps, batch, b, n, H, REVERSE
        )
        z = _product(w, held, before, active, col, there, H, 4 * H, BLOCK_K)
        even, odd = tl.split(tl.permute(tl.reshape(z, [2, 2, HP]), (2, 0, 1)))
        r_i, r_g = tl.split(even)
        r_f, r_o = tl.split(odd)
        i, f, g, o, cell, hidden = cell_forward(z_i + r_i, z_f + r_f, z_g + r_g, z_o + r_o, c, True)
        c = tl.where(active, cell, c)
        h = tl.where(active, hidden, h)
        mask = n < tl.where(active, H, 0)
        tl.store(y + row * H + n, hidden, mask=mask)
        if gates is not None:
            store_gates(gates, row * (4 * H) + n, mask, i, f, g, o, H)
            tl.store(cells + row * H + n, cell, mask=mask)
        # A row that begins later still has h0; one that has ended is never read again.
        before = tl.where(active, y + row * H, before)
        tl.debug_barrier()
    tl.store(hn + b * H + n, h, mask=inside)
    tl.store(cn + b * H + n, c, mask=inside)


@triton.jit
def _load_saved(  # type: ignore[no-untyped-def]
    dy, c0, gates, cells, starts, s, steps, batch, b, n, H: tl.constexpr, REVERSE: tl.constexpr
):
    """All that the way back reads of the s-th step: its row, gates, cells and dy."""
    start, size = step_rows(starts, visited(s, steps, REVERSE), batch)
    active = b < size
    row = start + b
    mask = n < tl.where(active, H, 0)
    i, f, g, o = load_gates(gates, row * (4 * H) + n, mask, H)
    cell = tl.load(cells + row * H + n, mask=mask, other=0.0)
    start, before_size = step_rows(starts, visited(s - 1, steps, REVERSE), batch)
    carried = b < before_size * (s > 0)  # a row that began at this step saw c0
    before = tl.load(
        tl.where(carried, cells + (start + b) * H, c0 + b * H) + n, mask=mask, other=0.0
    )
    d = tl.zeros_like(cell)
    if dy is not None:
        d = tl.load(dy + row * H + n, mask=mask, other=0.0)
    return row, active, i, f, g, o, cell, before, d


@triton.jit(do_not_specialize=["steps", "batch"])
def lstm_backward_row(  # type: ignore[no-untyped-def]
    dy,  # (N, H) or None
    starts,  # as in the forward
    c0,  # (B, H)
    w,  # (4H, H): w_hh
    gates,  # (N, 4H)
    cells,  # (N, H)
    dgates,  # (N, 4H) out: gradients of the gates before activation
    dh,  # (B, H) in: of h_n, out: of h0
    dc,  # (B, H) in: of c_n, out: of c0
    steps,
    batch,
    H: tl.constexpr,
    HP: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HELD: tl.constexpr,
    REVERSE: tl.constexpr,
):
    b = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, HP)
    inside = n < H
    held = _hold(w, n, inside, 4 * H, H, BLOCK_K, HELD)
    d_h = tl.load(dh + b * H + n, mask=inside, other=0.0)
    d_c = tl.load(dc + b * H + n, mask=inside, other=0.0)
    n_row, n_active, n_i, n_f, n_g, n_o, n_cell, n_before, n_dy = _load_saved(
        dy, c0, gates, cells, starts, steps - 1, steps, batch, b, n, H, REVERSE
    )
    for back in tl.range(0, steps):
        row, active, i, f, g, o = n_row, n_active, n_i, n_f, n_g, n_o
        cell, before, d_y = n_cell, n_before, n_dy
        s = tl.maximum(steps - 2 - back, 0)
        n_row, n_active, n_i, n_f, n_g, n_o, n_cell, n_before, n_dy = _load_saved(
            dy, c0, gates, cells, starts, s, steps, batch, b, n, H, REVERSE
        )
        d_i, d_f, d_g, d_o, d_before = cell_backward(i, f, g, o, cell, before, d_y + d_h, d_c, True)
        store_gates(dgates, row * (4 * H) + n, n < tl.where(active, H, 0), d_i, d_f, d_g, d_o, H)
        tl.debug_barrier()
        d_rec = _product(w, held, dgates + row * (4 * H), active, n, inside, 4 * H, H, BLOCK_K)
        d_h = tl.where(active, d_rec, d_h)
        d_c = tl.where(active, d_before, d_c)
    tl.store(dh + b * H + n, d_h, mask=inside)
    tl.store(dc + b * H + n, d_c, mask=inside)
