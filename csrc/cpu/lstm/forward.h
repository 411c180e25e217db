// LSTM forward over a chunked sequence: one layer, one tile of the batch.
//
//   [i f g o] = act(x W_ih^T + b + h W_hh^T);  c = f c + i g;  h = o tanh(c)
//
// Panels hold the four gates of one vector of units, so a tile of recurrent sums becomes c
// and h in registers; only activated gates reach memory, for the backward pass. At batch 1 a
// step streams W_hh (16 H^2 bytes) and is bound by L2; from six rows on by the FMA units.
#pragma once

#include "cpu/isa/activations.h"
#include "cpu/isa/panels.h"
#include "cpu/lstm/args.h"
#include "cpu/lstm/one_row.h"
#include "cpu/threads/wavefront.h"

namespace charlm {
namespace CHARLM_ISA {

// Panel p of w (4H, K): for vector p of units, the gates i f g o, V of them side by side. Blocks of
// L rows by L words are transposed in registers; the edges go element by element.
template <class S, int V>
void pack_gate_panel(const S* w, i64 H, i64 K, i64 p, S* packed) {
  constexpr int L = kLanes<S>, D = kDepth<S>, W = V * L;
  S* panel = packed + p * panel_size<S>(K);
  const i64 units = H - p * L < L ? H - p * L : L;
  for (i64 gate = 0; gate < 4; ++gate) {
    const S* from = w + (gate * H + p * L) * K;
    S* to = panel + gate / V * (panel_size<S>(K) / 4 * V) + gate % V * L * D;
    i64 k = 0;
#if defined(CHARLM_HAS_SHUFFLE)
    if (units == L) {
      for (; k + L * D <= K; k += L * D) {
        Vec<Compute<S>> block[L];
#pragma GCC unroll 16
        for (int u = 0; u < L; ++u) block[u] = load_words(from + u * K + k);
        transpose<Compute<S>>(block);
#pragma GCC unroll 16
        for (int j = 0; j < L; ++j) store_words(to + (k + j * D) * W, block[j]);
      }
    }
#endif
    for (; k < K; k += D)
      for (i64 u = 0; u < L; ++u)
        for (int d = 0; d < D; ++d)
          to[k * W + u * D + d] = u < units && k + d < K ? from[u * K + k + d] : S{};
  }
}

template <class S>
void pack_gate_bias(const S* bias, i64 H, i64 p, Compute<S>* packed) {
  constexpr int L = kLanes<S>;
  const int units = H - p * L < L ? static_cast<int>(H - p * L) : L;
  for (i64 gate = 0; gate < 4; ++gate)
    store(packed + p * kPanelWidth<S> + gate * L, load_n(bias + gate * H + p * L, units));
}

template <class S>
CHARLM_INLINE i64 gate_panels(i64 H) {
  return (H + kLanes<S> - 1) / kLanes<S>;
}

// One row, one vector of units: the recurrent sums to c and h.
template <class S>
CHARLM_INLINE void cell_forward(const Vec<Compute<S>>* sum, const Compute<S>* pre, i64 H, int n,
                                Compute<S>* c, S* h, S* gates, S* cell) {
  using T = Compute<S>;
  constexpr int L = kLanes<S>;
  const Vec<T> i = sigmoid<S>(sum[0] + load(pre));
  const Vec<T> f = sigmoid<S>(sum[1] + load(pre + L));
  const Vec<T> g = tanh<S>(sum[2] + load(pre + 2 * L));
  const Vec<T> o = sigmoid<S>(sum[3] + load(pre + 3 * L));
  const Vec<T> next = f * load_n(c, n) + i * g;
  store_n(c, next, n);
  store_n(h, o * tanh<S>(next), n);
  if (gates) {
    store_n(gates, i, n);
    store_n(gates + H, f, n);
    store_n(gates + 2 * H, g, n);
    store_n(gates + 3 * H, o, n);
    store_n(cell, next, n);
  }
}

// Calls body(sums, row) with the four vectors of sums of each row of a by a panel in strips. They
// meet in L1.
template <class T, class Body>
CHARLM_INLINE void for_tall_rows(const T* a, i64 stride, i64 rows, const T* panel, i64 K,
                                 const Body& body) {
  constexpr i64 kMost = 66, W = kPanelWidth<T>, S = kTallWidth<T>;
  alignas(64) T sums[kMost * W];
  const Parts blocks(rows, kMost), depths(K, kTallDepth);
  for (i64 block = 0; block < blocks.count; ++block) {
    const i64 first = blocks.begin(block), count = blocks.begin(block + 1) - first;
    if (rows <= CHARLM_TILE_ROWS)
      for_row_tiles(rows, [&](auto size, i64) __attribute__((always_inline)) {
        constexpr int MR = decltype(size)::value;
        Tile<T, MR> tile;
        multiply<T, MR, false, true>(tile, a, stride, panel, K);
        __builtin_memcpy(sums, &tile, sizeof(tile));
      });
    else
      for (i64 s = 0; s < W; s += S)
        for (i64 d = 0; d < depths.count; ++d) {
          const i64 k = depths.begin(d), depth = depths.begin(d + 1) - k;
          const T *from = a + first * stride + k, *strip = panel + s * K + k * S, *none = nullptr;
          tall_block(from, stride, count, strip, depth, strip + depth * S, d > 0, none, sums + s,
                     W);
        }
#pragma GCC unroll 1
    for (i64 r = 0; r < count; ++r) body(reinterpret_cast<const Vec<T>*>(sums + r * W), first + r);
  }
}

// Columns [first, last) of rows that lie side by side.
template <class S>
CHARLM_INLINE void copy_columns(S* to, const S* from, i64 rows, i64 stride, i64 first, i64 last) {
  for (i64 r = 0; r < rows; ++r)
    __builtin_memcpy(to + r * stride + first, from + r * stride + first,
                     sizeof(S) * (last - first));
}

// Columns of the state that a member computes: its units, or its panels of the projection.
template <class S>
CHARLM_INLINE Range state_columns(const ForwardArgs<S>& a, const Member& m) {
  return columns_of(m, a.R, a.hidden ? kPanelWidth<S> : kLanes<S>);
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
  const i64 width = gate_panels<S>(H) * kPanelWidth<S>;
  const Range panels = part(member, gate_panels<S>(H));
  // Every other step goes back over the panels, the last of which is still in L1, and takes the
  // units that were computed last as the last terms of its sums.
  const bool down = t % 2;
  const auto cell = [&](const Vec<Compute<S>>* sum, i64 p, i64 s) __attribute__((always_inline)) {
    const int n = H - p * L < L ? static_cast<int>(H - p * L) : L;
    const Compute<S>* from = pre + (ids ? ids[s] : s) * width + p * kPanelWidth<S>;
    cell_forward<S>(sum, from, H, n, c + s * H + p * L, hidden + s * H + p * L,
                    gates ? gates + s * 4 * H + p * L : nullptr,
                    gates ? cells + s * H + p * L : nullptr);
  };
  const bool strips = kTall && a.schedule.strips;
  if (rows == 1 && !strips) {
    const auto row = [&](const Vec<Compute<S>>* sum, i64 p)
                         __attribute__((always_inline)) { cell(sum, p, 0); };
    if (down)
      for_panels_of_row<S, false>(h, packed, R, panels.first, panels.last, true, row);
    else
      for_panels_of_row<S, true>(h, packed, R, panels.first, panels.last, false, row);
  }
  for (i64 j = panels.first; (rows > 1 || strips) && j < panels.last; ++j) {
    const i64 p = down ? panels.first + panels.last - 1 - j : j;
    if constexpr (kTall) {
      if (strips) {
        for_tall_rows(h, R, rows, packed + p * panel_size<S>(R), R,
                      [&](const Vec<Compute<S>>* sum, i64 s)
                          __attribute__((always_inline)) { cell(sum, p, s); });
        continue;
      }
    }
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
  multiply_panels<S>(x, I, rows, layer.packed_ih, I, width, p0, p1, layer.packed_bias, pre, width,
                     true, false, s.strips);
}

template <class S>
void forward_task(const ForwardArgs<S>& a, i64 l, i64 tile, Member& member) {
  const Schedule& s = a.schedule;
  const TileRows tile_rows(s, tile);
  const i64 panels = gate_panels<S>(a.H), width = panels * kPanelWidth<S>;
  const bool folded = l == 0 && a.ids;
  // In a wavefront the layer below computes half of this layer's input products.
  const i64 half = s.wavefront ? panels / 2 : 0;
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
      const Range own = part(member, panels);
      input_product<S>(a, l, tile, slot, steps, own.first + (l ? half : 0), own.last, pre);
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
    if (s.wavefront && l + 1 < a.L) {
      Compute<S>* above = a.pre[slot_of(s, l + 1, tile)] + origin * width;
      input_product<S>(a, l + 1, tile, slot, steps, 0, half, above);
    }
    if (s.wavefront) publish(s, l, tile, chunk + 1);
  }
}

}  // namespace CHARLM_ISA
}  // namespace charlm
