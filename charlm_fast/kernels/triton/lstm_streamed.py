"""One LSTM layer over all steps, any size and projection: the recurrent weights stream from L2.

Computes what lstm_resident does, where w_hh is too large for the registers of one SM.

Tiling: a program owns BLOCK_B batch rows and all units, and loops over time; within a step it
walks the units in blocks of BLOCK_H (four gate tiles at a time) and the product's depth in blocks
of BLOCK_K, whose loads are pipelined. The h that a step needs is whole only when all unit blocks
of the step before are done, so it goes through global memory (its own row of y, in L2), with a
barrier of the block between phases: what Triton turns into cp.async are weak accesses like
others, which the barrier orders after the stores before it (only bulk copies would want a fence
between proxies). No program reads what another wrote. Cell state passes
through two buffers in turn (`slot`): a block of threads may hold a value twice over, and the
copy's load must not meet the owner's store.

Bound by L2: each step reads all of w_hh into one SM, about 64 bytes a cycle: at H = 512 in 16 bits
18 us a step, and at H = 256 in float32 9 us. The rows of a program share that read.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .cell_maths import (
    cell_backward,
    cell_forward,
    load_gates,
    step_rows,
    store_gates,
    visited,
)


@triton.jit
def _gate(h, tile, mask, acc, PRECISION: tl.constexpr):  # type: ignore[no-untyped-def]
    w = tl.load(tile, mask=mask, other=0.0)
    return tl.dot(h, w, acc, input_precision=PRECISION, out_dtype=acc.dtype)


@triton.jit
def _product(  # type: ignore[no-untyped-def]
    a_rows,  # (B) pointers to rows of K values
    active,  # (B)
    w,  # (K, ·) with rows of STRIDE values
    n,
    N: tl.constexpr,
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
    STAGES: tl.constexpr,
    acc,
):
    """acc (B, n) + a (B, K) @ w (K, n)."""
    # Two rounds at least: where a loop of one melts into what follows, Triton 3.9 crashes.
    for k0 in tl.range(0, K if K > BLOCK_K else 2 * BLOCK_K, BLOCK_K, num_stages=STAGES):
        k = k0 + tl.arange(0, BLOCK_K)
        deep = k < K
        a = tl.load(a_rows[:, None] + k[None, :], mask=active[:, None] & deep[None, :], other=0.0)
        mask = deep[:, None] & (n < N)[None, :]
        tile = tl.load(w + k[:, None] * STRIDE + n[None, :], mask=mask, other=0.0)
        acc = tl.dot(a, tile, acc, input_precision=PRECISION, out_dtype=acc.dtype)
    return acc


@triton.jit(do_not_specialize=["steps", "batch"])
def lstm_forward_streamed(  # type: ignore[no-untyped-def]
    pre,  # (N, 4H) gates before the recurrent product; with ids a table (V, 4H)
    ids,  # (N) or None
    starts,  # (T + 1) first row of each step, or None when all steps have `batch` rows
    h0,  # (B, R)
    state,  # (2, B, H) cell state in the accumulator's type: c0 in slot 0, c_n in slot T % 2
    w,  # (R, 4H): w_hh transposed
    w_hr,  # (H, R): the projection transposed, or None
    hidden,  # (N, H) out before the projection; y itself without one
    y,  # (N, R) out
    hn,  # (B, R) out
    gates,  # (N, 4H) out, or None
    cells,  # (N, H) out, or None
    steps,
    batch,
    H: tl.constexpr,
    R: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
    REVERSE: tl.constexpr,
):
    b = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B).to(tl.int64)
    ACC: tl.constexpr = pre.dtype.element_ty
    EXACT: tl.constexpr = y.dtype.element_ty.primitive_bitwidth > 16
    plane = batch.to(tl.int64) * H
    for s in tl.range(0, steps):
        start, size = step_rows(starts, visited(s, steps, REVERSE), batch)
        last_start, last_size = step_rows(starts, visited(s - 1, steps, REVERSE), batch)
        _, next_size = step_rows(starts, visited(s + 1, steps, REVERSE), batch)
        active = b < size
        ends = active & (b >= next_size * (s + 1 < steps))
        carried = b < last_size * (s > 0)  # the other rows begin at this step
        pre_rows = start + b
        if ids is not None:
            pre_rows = tl.load(ids + pre_rows, mask=active, other=0)
        before = tl.where(carried, y + (last_start + b) * R, h0 + b * R)
        rows = start + b
        slot = (s % 2) * plane
        other = plane - slot
        for n0 in tl.range(0, H, BLOCK_H):
            n = n0 + tl.arange(0, BLOCK_H)
            inside = (n < H)[None, :]
            mask = active[:, None] & inside
            z_i, z_f, z_g, z_o = load_gates(pre, pre_rows[:, None] * (4 * H) + n[None, :], mask, H)
            for k0 in tl.range(0, R if R > BLOCK_K else 2 * BLOCK_K, BLOCK_K, num_stages=STAGES):
                k = k0 + tl.arange(0, BLOCK_K)
                deep = k < R
                h = tl.load(
                    before[:, None] + k[None, :], mask=active[:, None] & deep[None, :], other=0.0
                )
                tile = w + k[:, None] * (4 * H) + n[None, :]
                there = deep[:, None] & inside
                z_i = _gate(h, tile, there, z_i, PRECISION)
                z_f = _gate(h, tile + H, there, z_f, PRECISION)
                z_g = _gate(h, tile + 2 * H, there, z_g, PRECISION)
                z_o = _gate(h, tile + 3 * H, there, z_o, PRECISION)
            here = b[:, None] * H + n[None, :]
            valid = (b < batch)[:, None] & inside
            c = tl.load(state + slot + here, mask=valid, other=0.0)
            i, f, g, o, cell, out = cell_forward(z_i, z_f, z_g, z_o, c, EXACT)
            tl.store(state + other + here, tl.where(active[:, None], cell, c), mask=valid)
            tl.store(hidden + rows[:, None] * H + n[None, :], out, mask=mask)
            if w_hr is None:
                tl.store(hn + here, out, mask=ends[:, None] & inside)
            if gates is not None:
                store_gates(gates, rows[:, None] * (4 * H) + n[None, :], mask, i, f, g, o, H)
                tl.store(cells + rows[:, None] * H + n[None, :], cell, mask=mask)
        tl.debug_barrier()
        if w_hr is not None:
            for n0 in tl.range(0, R, BLOCK_H):
                n = n0 + tl.arange(0, BLOCK_H)
                acc = tl.zeros([BLOCK_B, BLOCK_H], ACC)
                acc = _product(
                    hidden + rows * H, active, w_hr, n, R, H, R, BLOCK_K, PRECISION, STAGES, acc
                )
                inside = (n < R)[None, :]
                mask = active[:, None] & inside
                tl.store(y + rows[:, None] * R + n[None, :], acc, mask=mask)
                tl.store(hn + b[:, None] * R + n[None, :], acc, mask=ends[:, None] & inside)
            tl.debug_barrier()


@triton.jit(do_not_specialize=["steps", "batch"])
def lstm_backward_streamed(  # type: ignore[no-untyped-def]
    dy,  # (N, R) or None
    starts,  # as in the forward
    c0,  # (B, H)
    w,  # (4H, R): w_hh
    w_hr,  # (R, H), or None
    gates,  # (N, 4H)
    cells,  # (N, H)
    dgates,  # (N, 4H) out: gradients of the gates before activation
    dout,  # (N, R) out, with a projection: all that reaches y
    dh,  # (B, R) in: of h_n, out: of h0; in the accumulator's type
    state,  # (2, B, H) of the cell: c_n's in slot 0, c0's in slot T % 2
    steps,
    batch,
    H: tl.constexpr,
    R: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
    REVERSE: tl.constexpr,
):
    b = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B).to(tl.int64)
    ACC: tl.constexpr = dh.dtype.element_ty
    EXACT: tl.constexpr = dgates.dtype.element_ty.primitive_bitwidth > 16
    plane = batch.to(tl.int64) * H
    for back in tl.range(0, steps):
        s = steps - 1 - back
        start, size = step_rows(starts, visited(s, steps, REVERSE), batch)
        last_start, last_size = step_rows(starts, visited(s - 1, steps, REVERSE), batch)
        active = b < size
        carried = b < last_size * (s > 0)
        cell_before = tl.where(carried, cells + (last_start + b) * H, c0 + b * H)
        rows = start + b
        slot = (back % 2) * plane
        other = plane - slot
        if w_hr is not None:
            for n0 in tl.range(0, R, BLOCK_H):
                n = n0 + tl.arange(0, BLOCK_H)
                mask = active[:, None] & (n < R)[None, :]
                d = tl.load(dh + b[:, None] * R + n[None, :], mask=mask, other=0.0)
                if dy is not None:
                    d += tl.load(dy + rows[:, None] * R + n[None, :], mask=mask, other=0.0).to(ACC)
                tl.store(dout + rows[:, None] * R + n[None, :], d, mask=mask)
            tl.debug_barrier()
        for n0 in tl.range(0, H, BLOCK_H):
            n = n0 + tl.arange(0, BLOCK_H)
            inside = (n < H)[None, :]
            mask = active[:, None] & inside
            here = b[:, None] * H + n[None, :]
            valid = (b < batch)[:, None] & inside
            if w_hr is None:
                d = tl.load(dh + here, mask=mask, other=0.0)
                if dy is not None:
                    d += tl.load(dy + rows[:, None] * H + n[None, :], mask=mask, other=0.0).to(ACC)
            else:
                d = tl.zeros([BLOCK_B, BLOCK_H], ACC)
                d = _product(
                    dout + rows * R, active, w_hr, n, H, R, H, BLOCK_K, PRECISION, STAGES, d
                )
            at = rows[:, None] * (4 * H) + n[None, :]
            i, f, g, o = load_gates(gates, at, mask, H)
            cell = tl.load(cells + rows[:, None] * H + n[None, :], mask=mask, other=0.0)
            before = tl.load(cell_before[:, None] + n[None, :], mask=mask, other=0.0)
            d_c = tl.load(state + slot + here, mask=valid, other=0.0)
            d_i, d_f, d_g, d_o, d_before = cell_backward(
                i.to(ACC),
                f.to(ACC),
                g.to(ACC),
                o.to(ACC),
                cell.to(ACC),
                before.to(ACC),
                d,
                d_c,
                EXACT,
            )
            store_gates(dgates, at, mask, d_i, d_f, d_g, d_o, H)
            tl.store(state + other + here, tl.where(active[:, None], d_before, d_c), mask=valid)
        tl.debug_barrier()
        for n0 in tl.range(0, R, BLOCK_H):
            n = n0 + tl.arange(0, BLOCK_H)
            acc = tl.zeros([BLOCK_B, BLOCK_H], ACC)
            acc = _product(
                dgates + rows * (4 * H), active, w, n, R, 4 * H, R, BLOCK_K, PRECISION, STAGES, acc
            )
            mask = active[:, None] & (n < R)[None, :]
            tl.store(dh + b[:, None] * R + n[None, :], acc, mask=mask)
        tl.debug_barrier()
