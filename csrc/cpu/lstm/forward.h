// LSTM forward over a chunked sequence: one layer, one tile of the batch.
//
//   [i f g o] = act(x W_ih^T + b + h W_hh^T);  c = f c + i g;  h = o tanh(c)
//
// Panels hold the four gates of one vector of units, so a tile of recurrent sums becomes c
// and h in registers; only activated gates reach memory, for the backward pass. At batch 1 a
// step streams W_hh (16 H^2 bytes) and is bound by L2; from six rows on by the FMA units.
#pragma once

#include "cpu/isa/panels.h"
#include "cpu/lstm/args.h"
#include "cpu/lstm/cells.h"
#include "cpu/lstm/gate_panels.h"
#include "cpu/lstm/one_row.h"
#include "cpu/lstm/triples.h"
#include "cpu/threads/wavefront.h"

namespace charlm {
namespace CHARLM_ISA {

// Columns [first, last) of rows that lie side by side.
template <class S>
CHARLM_INLINE void copy_columns(S* to, const S* from, i64 rows, i64 stride, i64 first, i64 last) {
  for (i64 r = 0; r < rows; ++r)
    __builtin_memcpy(to + r * stride + first, from + r * stride + first,
                     sizeof(S) * (last - first));
}

template <class S>
CHARLM_INLINE i64 panels_together(const ForwardArgs<S>& a) {
  return a.schedule.recurrent == Packing::triples ? kTriple : 1;
}

// Columns of the state that a member computes: its units, or its panels of the projection.
template <class S>
CHARLM_INLINE Range state_columns(const ForwardArgs<S>& a, const Member& m) {
  return columns_of(m, a.R, a.hidden ? kPanelWidth<S> : kLanes<S> * panels_together(a));
}

// The panels of its units.
template <class S>
CHARLM_INLINE Range own_panels(const ForwardArgs<S>& a, const Member& m) {
  return columns_of(m, gate_panels<S>(a.H), panels_together(a));
}

// Rows [first, first + rows) of step t, the `step`th to be computed. The input product of tile row
// r is row r of pre, or with ids row ids[r] of it. One instance: the cell's code is long, and the
// choice costs nothing beside a panel's product.
template <class S>
CHARLM_INLINE void forward_step(const ForwardArgs<S>& a, i64 l, i64 t, i64 step, i64 first,
                                i64 rows, Member& member, const Compute<S>* pre, const i64* ids) {
  constexpr int L = kLanes<S>;
  const i64 H = a.H, R = a.R, B = a.schedule.B;
  const i64 row0 = a.schedule.offset[t] + first;
  S* last = a.h + (l * B + first) * R;
  const S* h = member.size > 1 ? a.states + step % 2 * B * R : last;
  Compute<S>* c = a.c + (l * B + first) * H;
  S* y = a.y[l] + row0 * R;
  S* hidden = a.hidden ? a.hidden[l] + row0 * H : y;
  S* gates = a.save ? a.gates[l] + row0 * 4 * H : nullptr;
  S* cells = a.save ? a.cells[l] + row0 * H : nullptr;
  const S* packed = a.layers[l].packed_hh;
  const i64 width = pre_width<S>(H);
  const Range panels = own_panels(a, member);
  // Every other step goes back over the panels, the last of which is still in L1, and takes the
  // units that were computed last as the last terms of its sums.
  const bool down = t % 2;
  const auto units_of = [&](i64 p) { return H - p * L < L ? static_cast<int>(H - p * L) : L; };
  const auto cell = [&](const Vec<Compute<S>>* sum, i64 p, i64 s) __attribute__((always_inline)) {
    const int n = units_of(p);
    const Compute<S>* from = pre + (ids ? ids[s] : s) * width + p * kPanelWidth<S>;
    cell_forward<S>(sum, from, H, n, c + s * H + p * L, hidden + s * H + p * L,
                    gates ? gates + s * 4 * H + p * L : nullptr,
                    gates ? cells + s * H + p * L : nullptr);
  };
  const Packing packing = kTall ? a.schedule.recurrent : Packing::panels;
  if constexpr (kTall) {
    const auto cells_of = [&](S* sums, i64 apart, i64 p, i64 r, i64 panels_beside,
                              i64 rows_beside) {
      const i64 each = 4 * apart, count = panels_beside * rows_beside;
      const i64 by_panel = panels_beside > 1, by_row = !by_panel;
#pragma GCC unroll 1
      for (i64 k = 0; k < count; ++k) {
        const i64 q = p + k * by_panel, s = r + k * by_row, at = s * H + q * L;
        cell_gates<S>(sums + k * each, apart, pre + (ids ? ids[s] : s) * width + q * kPanelWidth<S>,
                      H, units_of(q), c + at, gates ? gates + s * 4 * H + q * L : nullptr,
                      gates ? cells + at : nullptr);
      }
      cell_outputs<S>(
          count, apart, [&](i64 k) { return units_of(p + k * by_panel); },
          [&](i64 k) { return sums + k * each; },
          [&](i64 k) { return hidden + (r + k * by_row) * H + (p + k * by_panel) * L; });
    };
    if (packing == Packing::triples && rows)
      for_triples(h, R, rows, packed, R, panels.first, panels.last, down, cells_of);
    if (packing == Packing::strips && rows)
      for_strips(h, R, rows, packed, R, panels.first, panels.last, down, cells_of);
  }
  if (rows == 1 && packing == Packing::panels) {
    const auto row = [&](const Vec<Compute<S>>* sum, i64 p)
                         __attribute__((always_inline)) { cell(sum, p, 0); };
    if (down)
      for_panels_of_row<S, false>(h, packed, R, panels.first, panels.last, true, row);
    else
      for_panels_of_row<S, true>(h, packed, R, panels.first, panels.last, false, row);
  }
  for (i64 j = panels.first; rows > 1 && packing == Packing::panels && j < panels.last; ++j) {
    const i64 p = down ? panels.first + panels.last - 1 - j : j;
    for_row_tiles(rows, [&](auto count, i64 r) __attribute__((always_inline)) {
      constexpr int MR = decltype(count)::value;
      Tile<Compute<S>, MR> tile;
      if (MR <= kFewRows && !down)
        multiply<S, MR, true>(tile, h + r * R, R, packed + p * panel_size<S>(R), R);
      else
        multiply<S, MR>(tile, h + r * R, R, packed + p * panel_size<S>(R), R);
#pragma GCC unroll 1  // unrolled, the activations swell the code and gain nothing
      for (int q = 0; q < MR; ++q) cell(tile.sum[q], p, r + q);
    });
  }
  if (a.hidden) {
    meet(member);
    if (!member.size) return;
    const Range columns = part(member, panel_count<S>(R));
    multiply_panels<S>(hidden, H, rows, a.layers[l].packed_hr, H, R, columns.first, columns.last,
                       nullptr, y, R, false, false, a.schedule.strips);
  }
  if (member.size == 1) {
    __builtin_memcpy(last, y, sizeof(S) * rows * R);
    return;
  }
  // The others may still read this step's state.
  const Range columns = state_columns(a, member);
  S* next = a.states + (step + 1) % 2 * B * R;
  copy_columns(next, y, rows, R, columns.first, columns.last);
  copy_columns(last, y, rows, R, columns.first, columns.last);
  meet(member);
}

// Input products of a chunk for panels [p0, p1): the tile's rows, step after step, into pre.
template <class S>
void input_product(const ForwardArgs<S>& a, i64 l, i64 tile, i64 slot, const Chunk& steps, i64 p0,
                   i64 p1, Compute<S>* pre) {
  const Schedule& s = a.schedule;
  const Layer<S>& layer = a.layers[l];
  const i64 I = layer.I, width = gate_panels<S>(a.H) * kPanelWidth<S>;
  const S* x = l ? a.y[l - 1] : a.x;
  const TileRows tile_rows(s, tile);
  i64 rows = 0;
  if (s.tiles == 1) {
    x += s.offset[steps.begin] * I;
    rows = s.offset[steps.end] - s.offset[steps.begin];
  } else {
    S* to = a.gather[slot];
    for (i64 t = steps.begin; t < steps.end; ++t) {
      const i64 n = tile_rows.count(t);
      __builtin_memcpy(to + rows * I, x + (s.offset[t] + tile_rows.first) * I, sizeof(S) * n * I);
      rows += n;
    }
    x = to;
  }
  multiply_panels<S>(x, I, rows, layer.packed_ih, I, width, p0, p1, layer.packed_bias, pre,
                     pre_width<S>(a.H), true, false, s.strips);
}

// Panels of a layer's input product that the layer below computes. In a wavefront, whose layers
// share their time evenly, that is half of them above a folded input, which needs no product.
template <class S>
CHARLM_INLINE i64 panels_from_below(const ForwardArgs<S>& a, i64 l) {
  return a.schedule.wavefront && l == 1 && a.ids ? gate_panels<S>(a.H) / 2 : 0;
}

template <class S>
void forward_task(const ForwardArgs<S>& a, i64 l, i64 tile, Member& member) {
  const Schedule& s = a.schedule;
  const TileRows tile_rows(s, tile);
  const i64 width = pre_width<S>(a.H);
  const bool folded = l == 0 && a.ids;
  const i64 given = panels_from_below(a, l);
  const i64 wanted = l + 1 < a.L ? panels_from_below(a, l + 1) : 0;
  const i64 slot = slot_of(s, l, tile);
  const i64 chunks = (s.T + s.chunk - 1) / s.chunk;
  if (member.size > 1) {
    const Range columns = state_columns(a, member);
    for (i64 k = 0; k < 2; ++k)  // rows may begin at any step
      copy_columns(a.states + k * s.B * a.R, a.h + l * s.B * a.R, s.B, a.R, columns.first,
                   columns.last);
    meet(member);
    if (!member.size) return;
  }
  for (i64 chunk = 0; chunk < chunks; ++chunk) {
    const Chunk steps(s, s.reverse ? chunks - 1 - chunk : chunk);
    // The first row of the chunk in a wavefront's buffer, which holds all steps.
    const i64 origin = s.wavefront ? steps.begin * (tile_rows.last - tile_rows.first) : 0;
    Compute<S>* pre = a.pre[slot] + origin * width;
    if (s.wavefront && l > 0) wait_for(s, l - 1, tile, chunk + 1);
    if (!folded) {
      const Range own = own_panels(a, member);
      input_product<S>(a, l, tile, slot, steps, own.first + given, own.last, pre);
    }
    i64 before = 0;
    if (s.reverse)
      for (i64 t = steps.begin; t < steps.end; ++t) before += tile_rows.count(t);
    for (i64 k = steps.begin; k < steps.end; ++k) {
      const i64 t = s.reverse ? steps.begin + steps.end - 1 - k : k;
      const i64 rows = tile_rows.count(t), step = s.reverse ? s.T - 1 - t : t;
      if (s.reverse) before -= rows;
      const i64* ids = folded ? a.ids + s.offset[t] + tile_rows.first : nullptr;
      forward_step<S>(a, l, t, step, tile_rows.first, rows, member,
                      folded ? a.table : pre + before * width, ids);
      if (!member.size) return;
      if (!s.reverse) before += rows;
    }
    if (wanted) {
      Compute<S>* above = a.pre[slot_of(s, l + 1, tile)] + origin * width;
      input_product<S>(a, l + 1, tile, slot, steps, 0, wanted, above);
    }
    if (s.wavefront) publish(s, l, tile, chunk + 1);
  }
}

}  // namespace CHARLM_ISA
}  // namespace charlm
