// LSTM backward through time: one layer, one tile of the batch, steps in reverse.
//
// Leaves the gradients of the gates before activation (N, 4H); the weight gradients are
// single large products of these and are left to BLAS. A step is an elementwise pass and
// dh = dgates W_hh, bound like the forward pass: by L2 at batch 1, by the FMA units from six
// rows on. tanh(c) is computed again, which is cheaper than keeping it.
#pragma once

#include "cpu/isa/activations.h"
#include "cpu/isa/panels.h"
#include "cpu/lstm/args.h"
#include "cpu/threads/wavefront.h"

namespace charlm {
namespace CHARLM_ISA {

// One row, one vector of units. dh is the whole gradient that reaches h.
template <class S>
CHARLM_INLINE void cell_backward(Vec<Compute<S>> dh, const S* gates, const S* cell, const S* before,
                                 i64 H, int n, Compute<S>* dc, S* dgates) {
  using T = Compute<S>;
  const Vec<T> i = load_n(gates, n), f = load_n(gates + H, n);
  const Vec<T> g = load_n(gates + 2 * H, n), o = load_n(gates + 3 * H, n);
  const Vec<T> squashed = tanh<S>(load_n(cell, n));
  const Vec<T> d = load_n(dc, n) + dh * o * (T(1) - squashed * squashed);
  store_n(dgates, d * g * i * (T(1) - i), n);
  store_n(dgates + H, d * load_n(before, n) * f * (T(1) - f), n);
  store_n(dgates + 2 * H, d * i * (T(1) - g * g), n);
  store_n(dgates + 3 * H, dh * squashed * o * (T(1) - o), n);
  store_n(dc, d * f, n);
}

template <class S>
CHARLM_INLINE void backward_step(const BackwardArgs<S>& a, i64 l, i64 t, i64 slot, i64 first,
                                 i64 rows, Member& member) {
  constexpr int L = kLanes<S>;
  const Schedule& s = a.schedule;
  const i64 H = a.H, R = a.R;
  const i64 row0 = s.offset[t] + first;
  const i64 previous = s.reverse ? t + 1 : t - 1;
  const i64 rows_before = previous >= 0 && previous < s.T ? s.size[previous] : 0;
  const S* dy = a.dy[l] ? a.dy[l] + row0 * R : nullptr;
  Compute<S>* dh = a.dh + (l * s.B + first) * R;
  Compute<S>* dc = a.dc + (l * s.B + first) * H;
  S* dgates = a.dgates[l] + row0 * 4 * H;
  const Compute<S>* dhidden = nullptr;
  if (a.dprojected) {
    S* total = a.dprojected[l] + row0 * R;
    const Range own = columns_of(member, R, kPanelWidth<S>);
    for (i64 r = 0; r < rows; ++r)
      for (i64 k = own.first; k < own.last; k += L) {
        const int n = own.last - k < L ? static_cast<int>(own.last - k) : L;
        Vec<Compute<S>> sum = load_n(dh + r * R + k, n);
        if (dy) sum += load_n(dy + r * R + k, n);
        store_n(total + r * R + k, sum, n);
      }
    meet(member);
    if (!member.size) return;
    const Range hr_panels = part(member, panel_count<S>(H));
    multiply_panels<S>(total, R, rows, a.layers[l].packed_hr, R, H, hr_panels.first, hr_panels.last,
                       nullptr, a.dhidden[slot], H, false, false, s.strips);
    dhidden = a.dhidden[slot];
  }
  const Range units = columns_of(member, H, kPanelWidth<S>);
  for (i64 r = 0; r < rows; ++r) {
    const S* gates = a.gates[l] + (row0 + r) * 4 * H;
    const S* cells = a.cells[l] + (row0 + r) * H;
    const S* before = first + r < rows_before ? a.cells[l] + (s.offset[previous] + first + r) * H
                                              : a.c0 + (l * s.B + first + r) * H;
    for (i64 k = units.first; k < units.last; k += L) {
      const int n = units.last - k < L ? static_cast<int>(units.last - k) : L;
      Vec<Compute<S>> total;
      if (dhidden) {
        total = load_n(dhidden + r * H + k, n);
      } else {
        total = load_n(dh + r * R + k, n);
        if (dy) total += load_n(dy + r * R + k, n);
      }
      cell_backward<S>(total, gates + k, cells + k, before + k, H, n, dc + r * H + k,
                       dgates + r * 4 * H + k);
    }
  }
  meet(member);
  if (!member.size) return;
  const Range panels = part(member, panel_count<S>(R));
  multiply_panels<S>(dgates, 4 * H, rows, a.layers[l].packed_hh, 4 * H, R, panels.first,
                     panels.last, nullptr, dh, R, false, t % 2, s.strips);
}

// dx of a chunk = dgates @ W_ih, panels [p0, p1).
template <class S>
void input_gradient(const BackwardArgs<S>& a, i64 l, i64 tile, i64 slot, const Chunk& steps, i64 p0,
                    i64 p1) {
  const Schedule& s = a.schedule;
  const Layer<S>& layer = a.layers[l];
  const i64 I = layer.I, G = 4 * a.H;
  const TileRows tile_rows(s, tile);
  if (s.tiles == 1) {
    const i64 row0 = s.offset[steps.begin];
    multiply_panels<S>(a.dgates[l] + row0 * G, G, s.offset[steps.end] - row0, layer.packed_ih, G, I,
                       p0, p1, nullptr, a.dx[l] + row0 * I, I, false, false, s.strips);
    return;
  }
  i64 rows = 0;
  for (i64 t = steps.begin; t < steps.end; ++t) {
    const i64 n = tile_rows.count(t);
    __builtin_memcpy(a.gather[slot] + rows * G, a.dgates[l] + (s.offset[t] + tile_rows.first) * G,
                     sizeof(S) * n * G);
    rows += n;
  }
  multiply_panels<S>(a.gather[slot], G, rows, layer.packed_ih, G, I, p0, p1, nullptr,
                     a.scatter[slot], I, false, false, s.strips);
  // Only the columns of these panels: another thread may be writing the others.
  const i64 first = p0 * kPanelWidth<S>;
  const i64 last = p1 * kPanelWidth<S> < I ? p1 * kPanelWidth<S> : I;
  const S* from = a.scatter[slot];
  for (i64 t = steps.begin; t < steps.end; ++t) {
    S* to = a.dx[l] + (s.offset[t] + tile_rows.first) * I;
    for (i64 r = tile_rows.count(t); r > 0; --r, from += I, to += I)
      if (last > first) __builtin_memcpy(to + first, from + first, sizeof(S) * (last - first));
  }
}

// Panels of a layer's input gradient that the layer below computes. In a wavefront, whose layers
// share their time evenly, that is half of them above an input that needs no gradient.
template <class S>
CHARLM_INLINE i64 panels_for_below(const BackwardArgs<S>& a, i64 l) {
  return a.schedule.wavefront && l == 1 && !a.dx[0] ? (panel_count<S>(a.layers[1].I) + 1) / 2 : 0;
}

template <class S>
void backward_task(const BackwardArgs<S>& a, i64 l, i64 tile, Member& member) {
  const Schedule& s = a.schedule;
  const TileRows tile_rows(s, tile);
  const i64 slot = slot_of(s, l, tile);
  const i64 chunks = (s.T + s.chunk - 1) / s.chunk;
  for (i64 chunk = 0; chunk < chunks; ++chunk) {
    const Chunk steps(s, s.reverse ? chunk : chunks - 1 - chunk);
    if (s.wavefront && l + 1 < a.L) {
      wait_for(s, l + 1, tile, chunk + 1);
      if (const i64 left = panels_for_below(a, l + 1)) {
        const i64 panels = panel_count<S>(a.layers[l + 1].I);
        input_gradient<S>(a, l + 1, tile, slot, steps, panels - left, panels);
      }
    }
    for (i64 k = steps.begin; k < steps.end; ++k) {
      const i64 t = s.reverse ? k : steps.begin + steps.end - 1 - k;
      const i64 rows = tile_rows.count(t);
      if (rows) backward_step<S>(a, l, t, slot, tile_rows.first, rows, member);
      if (!member.size) return;
    }
    if (a.dx[l]) {
      const Range own = part(member, panel_count<S>(a.layers[l].I) - panels_for_below(a, l));
      input_gradient<S>(a, l, tile, slot, steps, own.first, own.last);
    }
    if (s.wavefront) publish(s, l, tile, chunk + 1);
  }
}

}  // namespace CHARLM_ISA
}  // namespace charlm
