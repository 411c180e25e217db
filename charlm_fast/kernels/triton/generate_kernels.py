"""Whole texts in one launch: embed -> all layers -> head -> draw -> the next embedding.

Computes, for the steps of the prompts and then of the texts, the L cells of each row, and from the
last id of a prompt on, its logits, a draw (draw.py) and its log-probability.

Tiling: a program owns BLOCK_B rows from the first step to the last and loops over time. Layer 0
gathers its input product from a folded table, or where there is none multiplies the embedding row.
Every product walks the units (or the vocabulary) in blocks of columns and its depth in blocks of
BLOCK_K. At one row a thread multiplies its own columns' weights by one input a depth, and a sum
over the depth joins the threads; more rows go through tl.dot, on tensor cores in 16 bits and TF32.
What a phase hands to the next (h, logits, ids) goes through global memory, that is L1 and L2, with
a barrier of the block: no program reads what another wrote. h and c have two places that a row
uses in turn, so that no store meets a load of the same step. Prompts end together: a row with a
shorter one joins late, and keeps what it was given until then.

Bound by the weights' stream at few rows: at the default model (H = 128, L = 2, V = 100) 819 KB a
step in float32, at some 64 bytes a cycle from L2 to an SM 12,800 cycles. The rows of a program
share that stream, so that with 16 rows the multiply-adds bind it in float32, 26,000 cycles; tensor
cores in 16 bits leave the stream, 410 KB and 6,400 cycles, in front.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .cell_maths import cell_forward, load_gates
from .draw import draw
from .weights import rows_of, uniform


@triton.jit
def _row_gates(  # type: ignore[no-untyped-def]
    a_row, active, w, n, depth, N: tl.constexpr, BLOCK_K: tl.constexpr, z_i, z_f, z_g, z_o
):
    """The gates of one row, z + a (depth) @ w (depth, 4N) in the columns n of each gate."""
    ACC: tl.constexpr = z_i.dtype
    k = tl.arange(0, BLOCK_K)[:, None]
    inside = (n < N)[None, :]
    acc_i = tl.zeros([BLOCK_K, n.shape[0]], ACC)
    acc_f = tl.zeros([BLOCK_K, n.shape[0]], ACC)
    acc_g = tl.zeros([BLOCK_K, n.shape[0]], ACC)
    acc_o = tl.zeros([BLOCK_K, n.shape[0]], ACC)
    for k0 in tl.range(0, depth, BLOCK_K):
        deep = k0 + k < depth
        a = tl.load(a_row[None, :] + k0 + k, mask=active[None, :] & deep, other=0.0).to(ACC)
        i, f, g, o = load_gates(w, (k0 + k) * (4 * N) + n[None, :], deep & inside, N)
        acc_i += i * a
        acc_f += f * a
        acc_g += g * a
        acc_o += o * a
    return (
        z_i + tl.sum(acc_i, axis=0)[None, :],
        z_f + tl.sum(acc_f, axis=0)[None, :],
        z_g + tl.sum(acc_g, axis=0)[None, :],
        z_o + tl.sum(acc_o, axis=0)[None, :],
    )


@triton.jit
def _gates(  # type: ignore[no-untyped-def]
    a_rows,  # (B) pointers to rows of `depth` values
    active,  # (B)
    w,  # (depth, 4N)
    n,
    depth,
    N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
    STAGES: tl.constexpr,
    z_i,
    z_f,
    z_g,
    z_o,
):
    if a_rows.shape[0] == 1:
        z_i, z_f, z_g, z_o = _row_gates(a_rows, active, w, n, depth, N, BLOCK_K, z_i, z_f, z_g, z_o)
    else:
        for k0 in tl.range(0, depth, BLOCK_K, num_stages=STAGES):
            k = k0 + tl.arange(0, BLOCK_K)
            deep = k < depth
            mask = active[:, None] & deep[None, :]
            a = tl.load(a_rows[:, None] + k[None, :], mask=mask, other=0.0)
            i, f, g, o = load_gates(
                w, k[:, None] * (4 * N) + n[None, :], deep[:, None] & (n < N)[None, :], N
            )
            z_i = tl.dot(a, i, z_i, input_precision=PRECISION, out_dtype=z_i.dtype)
            z_f = tl.dot(a, f, z_f, input_precision=PRECISION, out_dtype=z_f.dtype)
            z_g = tl.dot(a, g, z_g, input_precision=PRECISION, out_dtype=z_g.dtype)
            z_o = tl.dot(a, o, z_o, input_precision=PRECISION, out_dtype=z_o.dtype)
    return z_i, z_f, z_g, z_o


@triton.jit
def _logits(  # type: ignore[no-untyped-def]
    a_rows,  # (B) pointers to rows of H values
    active,
    head,  # (H, V)
    head_bias,  # (V) or None
    logits,  # (B, V) out
    b,
    depth,  # H
    V: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
    STAGES: tl.constexpr,
):
    ACC: tl.constexpr = logits.dtype.element_ty
    BLOCK_B: tl.constexpr = a_rows.shape[0]
    for v0 in tl.range(0, V, BLOCK_V):
        v = v0 + tl.arange(0, BLOCK_V)
        inside = (v < V)[None, :]
        if BLOCK_B == 1:
            k = tl.arange(0, BLOCK_K)[:, None]
            acc = tl.zeros([BLOCK_K, BLOCK_V], ACC)
            for k0 in tl.range(0, depth, BLOCK_K):
                deep = k0 + k < depth
                a = tl.load(a_rows[None, :] + k0 + k, mask=active[None, :] & deep, other=0.0)
                from_k0 = head + k0 * tl.full([], V, tl.int64)
                w = tl.load(from_k0 + k * V + v[None, :], mask=deep & inside, other=0.0)
                acc += w * a.to(ACC)
            z = tl.sum(acc, axis=0)[None, :]
        else:
            z = tl.zeros([BLOCK_B, BLOCK_V], ACC)
            for k0 in tl.range(0, depth, BLOCK_K, num_stages=STAGES):
                k = k0 + tl.arange(0, BLOCK_K)
                deep = k < depth
                mask = active[:, None] & deep[None, :]
                a = tl.load(a_rows[:, None] + k[None, :], mask=mask, other=0.0)
                w = tl.load(
                    head + k[:, None] * V + v[None, :], mask=deep[:, None] & inside, other=0.0
                )
                z = tl.dot(a, w, z, input_precision=PRECISION, out_dtype=ACC)
        if head_bias is not None:
            z += tl.load(head_bias + v, mask=v < V, other=0.0)[None, :]
        tl.store(logits + b[:, None] * V + v[None, :], z, mask=active[:, None] & inside)


@triton.jit
def _layer(  # type: ignore[no-untyped-def]
    pre,  # (·, 4H) bias, or the table
    pre_rows,  # (B) rows of it
    x_rows,  # (B) pointers to the input's rows of E values
    w_ih,  # (E, 4H), or None where the table has this product
    h_rows,  # (B) pointers to rows of H values: the state before,
    c_rows,
    new_h_rows,  # and after
    new_c_rows,
    w_hh,  # (H, 4H)
    active,
    input_depth,  # E
    depth,  # H
    H: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
    STAGES: tl.constexpr,
    EXACT: tl.constexpr,
):
    for n0 in tl.range(0, H, BLOCK_H):
        n = n0 + tl.arange(0, BLOCK_H)
        mask = active[:, None] & (n < H)[None, :]
        z_i, z_f, z_g, z_o = load_gates(pre, pre_rows[:, None] * (4 * H) + n[None, :], mask, H)
        if w_ih is not None:
            z_i, z_f, z_g, z_o = _gates(
                x_rows,
                active,
                w_ih,
                n,
                input_depth,
                H,
                BLOCK_K,
                PRECISION,
                STAGES,
                z_i,
                z_f,
                z_g,
                z_o,
            )
        z_i, z_f, z_g, z_o = _gates(
            h_rows, active, w_hh, n, depth, H, BLOCK_K, PRECISION, STAGES, z_i, z_f, z_g, z_o
        )
        c = tl.load(c_rows[:, None] + n[None, :], mask=mask, other=0.0)
        _, _, _, _, cell, hidden = cell_forward(z_i, z_f, z_g, z_o, c, EXACT)
        tl.store(new_c_rows[:, None] + n[None, :], cell, mask=mask)
        tl.store(new_h_rows[:, None] + n[None, :], hidden, mask=mask)
    tl.debug_barrier()


@triton.jit(
    do_not_specialize=[
        "prompt_steps",
        "steps",
        "batch",
        "depth",
        "input_depth",
        "top_k",
        "top_p",
        "floor",
        "seed",
        "offset",
    ]
)
def generate_text(  # type: ignore[no-untyped-def]
    pre,  # (V, 4H) embedding @ w_ih^T + bias of layer 0; without a table (1, 4H) its bias
    embedding,  # (V, E), or None with a table
    w_first,  # (E, 4H): layer 0's w_ih transposed, or None with a table
    w_above,  # (L - 1, H, 4H): w_ih of the layers above it, or None
    bias_above,  # (L - 1, 4H), or None
    w_hh,  # (L, H, 4H)
    head,  # (H, V)
    head_bias,  # (V) or None
    hidden,  # (2, L, B, H): h0 in the first, then each row's in turn
    cells,  # (2, L, B, H) in the accumulator's type
    logits,  # (B, V) in the accumulator's type, scratch
    prompts,  # (S, B), of which row b has its first lengths[b]
    lengths,  # (B)
    temperature,  # (B) float64
    ids,  # (length, B) out
    logprobs,  # (length, B) out
    steps,  # S - 1 + length
    depth,  # H, and E below, as numbers of the launch: loops of a known length are unrolled until
    input_depth,  # their addresses fill all registers
    prompt_steps,  # S
    batch,
    top_k: tl.int32,
    top_p: tl.float64,
    floor: tl.float64,
    seed: tl.int64,
    offset: tl.int64,
    E: tl.constexpr,
    H: tl.constexpr,
    L: tl.constexpr,
    V: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
    HEAD_K: tl.constexpr,
    STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,  # that draw at a time
    DRAWN_V: tl.constexpr,
    TOP_K: tl.constexpr,
    TOP_P: tl.constexpr,
    LOW: tl.constexpr,
):
    EXACT: tl.constexpr = hidden.dtype.element_ty.primitive_bitwidth > 16
    first = tl.program_id(0).to(tl.int64) * BLOCK_B
    b = first + tl.arange(0, BLOCK_B)
    valid = b < batch
    joins = prompt_steps - tl.load(lengths + b, mask=valid, other=1)
    plane = batch.to(tl.int64) * H  # of one layer
    for s in tl.range(0, steps):
        active = valid & (s >= joins)
        # The row's id: from its prompt, then what it drew; a row that ended goes on unread.
        # != 0: `&` with a scalar comparison is an integer in the interpreter of Triton 3.9.
        here = (active & (s < prompt_steps)) != 0
        told = tl.load(prompts + (s - joins) * batch + b, mask=here, other=0)
        drawn = tl.load(
            ids + (s - prompt_steps) * batch.to(tl.int64) + b,
            mask=(valid & (s >= prompt_steps)) != 0,
            other=0,
        )
        id = tl.maximum(told + drawn, 0)
        turn = (s - joins) & 1
        old = turn * (L * plane) + b * H
        new = (1 - turn) * (L * plane) + b * H
        if embedding is None:
            _layer(
                pre, id, hidden + old, None, hidden + old, cells + old, hidden + new, cells + new,
                w_hh, active, input_depth, depth, H, BLOCK_H, BLOCK_K, PRECISION, STAGES, EXACT,
            )  # fmt: skip
        else:
            _layer(
                pre, id * 0, embedding + id * E, w_first, hidden + old, cells + old, hidden + new,
                cells + new, w_hh, active, input_depth, depth, H, BLOCK_H, BLOCK_K,
                PRECISION, STAGES, EXACT,
            )  # fmt: skip
        if L > 1:
            for l in tl.range(1, L):
                below = new + (l - 1) * plane
                own, fresh = old + l * plane, new + l * plane
                at = l * tl.full([], 4 * H * H, tl.int64)
                _layer(
                    bias_above, id * 0 + (l - 1), hidden + below, w_above + (at - 4 * H * H),
                    hidden + own, cells + own, hidden + fresh, cells + fresh, w_hh + at,
                    active, depth, depth, H, BLOCK_H, BLOCK_K, PRECISION, STAGES, EXACT,
                )  # fmt: skip
        t = s - (prompt_steps - 1)
        if t >= 0:
            _logits(
                hidden + new + (L - 1) * plane, active, head, head_bias, logits, b,
                depth, V, BLOCK_V, HEAD_K, PRECISION, STAGES,
            )  # fmt: skip
            tl.debug_barrier()
            out = t * batch.to(tl.int64)
            for group in tl.range(0, BLOCK_B // ROWS):
                r = rows_of(tl.program_id(0) * (BLOCK_B // ROWS) + group, ROWS)
                there = r < batch
                heat = tl.load(temperature + r, mask=there, other=1.0)
                u = uniform(seed, offset.to(tl.int64) + t, r)
                wanted, logprob = draw(
                    logits, r, there, heat, u, top_k, top_p, floor,
                    V, DRAWN_V, TOP_K, TOP_P, LOW,
                )  # fmt: skip
                last = tl.load(ids + (out - batch) + r, mask=(there & (t > 0)) != 0, other=0)
                tl.store(ids + out + r, tl.where(last < 0, last, wanted), mask=there)
                tl.store(logprobs + out + r, tl.where(last < 0, 0.0, logprob), mask=there)
            tl.debug_barrier()
