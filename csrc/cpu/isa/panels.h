// Packed weight panels and the register tile that multiplies rows by one panel.
//
// A matrix (K, N) is cut into panels of kPanelVectors vectors of columns, each stored as K
// consecutive rows, zero-padded: a product streams a panel once from start to end. Where a word
// holds two values of K, rows k and k + 1 of a panel are interleaved, and K is padded to even. The
// tile keeps MR rows x kPanelVectors vectors of sums in registers. One row is bound by the cache
// that feeds the panel, six rows by the multiply-add units.
//
// Where registers are too few for six rows of a panel, it may be kept as two strips: see tall.h.
#pragma once

#include "cpu/isa/tall.h"
#include "cpu/isa/vec.h"

namespace charlm {
namespace CHARLM_ISA {

constexpr int kPanelVectors = 4;

template <class S>
constexpr int kPanelWidth = kPanelVectors * kLanes<S>;

constexpr int kStripVectors = kTall ? kTallVectors : kPanelVectors;

// So few rows leave multiply-add latency exposed, and registers for a second set of sums.
constexpr int kFewRows = CHARLM_TILE_ROWS < 6 ? 1 : 2;

template <class S>
CHARLM_INLINE i64 panel_count(i64 columns) {
  return (columns + kPanelWidth<S> - 1) / kPanelWidth<S>;
}

// Elements of one panel.
template <class S>
CHARLM_INLINE i64 panel_size(i64 K) {
  return (K + kDepth<S> - 1) / kDepth<S> * kDepth<S> * kPanelWidth<S>;
}

template <class T, int MR>
struct Tile {
  Vec<T> sum[MR][kPanelVectors];
};

// sum[r][v] = a[r, :] . panel[:, v] for MR rows of a, K long and `stride` apart. Few rows, which
// wait for the cache, may take K `down` from its end: see forward_step. `strips`: see tall.h.
template <class S, int MR, bool down = false, bool strips = false>
CHARLM_PRODUCT void multiply(Tile<Compute<S>, MR>& tile, const S* a, i64 stride, const S* panel,
                             i64 K) {
  constexpr int D = kDepth<S>, L = D * kLanes<S>, V = kTallVectors;
  constexpr int W = strips ? V * L : D * kPanelWidth<S>;
  const i64 apart = strips ? K * W : V * L;
  const auto vector = [=](const S* row, int v) __attribute__((always_inline)) {
    return load_words(row + v % V * L + v / V * apart);
  };
  Tile<Compute<S>, MR> acc = {};
  if constexpr (MR <= kFewRows) {
    // Two interleaved chains along K.
    Tile<Compute<S>, MR> odd = {};
    constexpr i64 next = down ? -D : D, width = down ? -W : W;
    const S* row = down ? panel + (K / D - 1) * W : panel;
    const S* from = down ? a + (K / D - 1) * D : a;
    i64 k = 0;
    for (; k + 2 * D <= K; k += 2 * D, row += 2 * width, from += 2 * next) {
#pragma GCC unroll 2
      for (int r = 0; r < MR; ++r) {
        const Vec<Compute<S>> s0 = splat_word(from + r * stride);
        const Vec<Compute<S>> s1 = splat_word(from + r * stride + next);
#pragma GCC unroll 4
        for (int v = 0; v < kPanelVectors; ++v) {
          acc.sum[r][v] = multiply_add(a, acc.sum[r][v], s0, vector(row, v));
          odd.sum[r][v] = multiply_add(a, odd.sum[r][v], s1, vector(row + width, v));
        }
      }
    }
    if (k + D <= K) {
#pragma GCC unroll 2
      for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < kPanelVectors; ++v)
          acc.sum[r][v] =
              multiply_add(a, acc.sum[r][v], splat_word(from + r * stride), vector(row, v));
    }
#pragma GCC unroll 2
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVectors; ++v) acc.sum[r][v] += odd.sum[r][v];
  } else {
    for (i64 k = 0; k + D <= K; k += D) {
      const S* row = panel + k / D * W;
      Vec<Compute<S>> b[kPanelVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVectors; ++v) b[v] = vector(row, v);
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r) {
        const Vec<Compute<S>> s = splat_word(a + r * stride + k);
#pragma GCC unroll 4
        for (int v = 0; v < kPanelVectors; ++v)
          acc.sum[r][v] = multiply_add(a, acc.sum[r][v], s, b[v]);
      }
    }
  }
  if constexpr (D > 1) {
    if (K % D) {
      // The row's last value alone: what follows it in memory may be anything, NaN included.
      const S* row = panel + K / D * W;
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < kPanelVectors; ++v)
          acc.sum[r][v] =
              multiply_add(a, acc.sum[r][v], splat_last(a + r * stride + K - 1), vector(row, v));
    }
  }
  tile = acc;
}

// Calls body(RowCount<MR>{}, first_row) over `rows` rows, in tiles of CHARLM_TILE_ROWS and a rest.
template <int MR>
struct RowCount {
  static constexpr int value = MR;
};

template <int MR, class Body>
CHARLM_INLINE void rest_of_rows(i64 rows, i64 first, const Body& body) {
  if constexpr (MR > 0) {
    if (rows == MR)
      body(RowCount<MR>{}, first);
    else
      rest_of_rows<MR - 1>(rows, first, body);
  }
}

template <class Body>
CHARLM_INLINE void for_row_tiles(i64 rows, const Body& body) {
  i64 r = 0;
  for (; rows - r >= CHARLM_TILE_ROWS; r += CHARLM_TILE_ROWS) body(RowCount<CHARLM_TILE_ROWS>{}, r);
  rest_of_rows<CHARLM_TILE_ROWS - 1>(rows - r, r, body);
}

// out[r, :] = a[r, :] @ packed (+ bias) for panels [p0, p1) of a (K, N) matrix. Where
// `padded`, out has whole panels in its rows; otherwise only N columns are written. `strips`: so
// the panels are kept.
template <class S, class O>
void multiply_panels(const S* a, i64 a_stride, i64 rows, const S* packed, i64 K, i64 N, i64 p0,
                     i64 p1, const Compute<S>* bias, O* out, i64 out_stride, bool padded, bool down,
                     bool strips) {
  constexpr int L = kLanes<S>;
  if constexpr (kTall) {
    constexpr int each = kPanelVectors / kStripVectors;
    if (strips && rows > CHARLM_TILE_ROWS)
      return multiply_tall(a, a_stride, rows, packed, K, N, p0 * each, p1 * each, bias, out,
                           out_stride, padded, down);
  }
  for (i64 q = p0; q < p1; ++q) {
    const i64 p = down ? p0 + p1 - 1 - q : q;
    const S* panel = packed + p * panel_size<S>(K);
    for_row_tiles(rows, [&](auto count, i64 r) __attribute__((always_inline)) {
      constexpr int MR = decltype(count)::value;
      Tile<Compute<S>, MR> tile;
      if (kTall && strips)
        multiply<S, MR, false, kTall>(tile, a + r * a_stride, a_stride, panel, K);
      else if (MR <= kFewRows && down)
        multiply<S, MR, true>(tile, a + r * a_stride, a_stride, panel, K);
      else
        multiply<S, MR>(tile, a + r * a_stride, a_stride, panel, K);
#pragma GCC unroll 8
      for (int q = 0; q < MR; ++q)
#pragma GCC unroll 4
        for (int v = 0; v < kPanelVectors; ++v) {
          const i64 column = p * kPanelWidth<S> + v * L;
          Vec<Compute<S>> s = tile.sum[q][v];
          if (bias) s += load(bias + column);
          O* to = out + (r + q) * out_stride + column;
          if (padded || column + L <= N)
            store(to, s);
          else if (column < N)
            store_n(to, s, static_cast<int>(N - column));
        }
    });
  }
}

// packed panel p of the matrix (K, N) whose element (k, n) is source[k * row + n * column], V
// vectors of columns side by side.
template <class S, int V>
void pack_panel(const S* source, i64 row, i64 column, i64 K, i64 N, i64 p, S* packed) {
  constexpr int D = kDepth<S>, W = V * kLanes<S>;
  S* const panel = packed + p * panel_size<S>(K);
  const i64 strip = panel_size<S>(K) / kPanelVectors * V;
  for (i64 k = 0; k < K; k += D) {
    for (int s = 0; s < kPanelVectors / V; ++s) {
      S* to = panel + s * strip + k * W;
      const i64 first = p * kPanelWidth<S> + s * W;
      const i64 left = N > first ? N - first : 0, width = left < W ? left : W;
      for (int d = 0; d < D; ++d) {
        const S* from = source + (k + d) * row + first * column;
        const i64 there = k + d < K ? width : 0;
        if constexpr (D == 1 && V < kPanelVectors) {
          __builtin_prefetch(from + 8 * row);
          if (column == 1 && there == W) {
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) store(to + v * kLanes<S>, load(from + v * kLanes<S>));
            continue;
          }
        }
        for (i64 n = 0; n < there; ++n) to[n * D + d] = from[n * column];
        for (i64 n = there; n < W; ++n) to[n * D + d] = S{};
      }
    }
  }
}

}  // namespace CHARLM_ISA
}  // namespace charlm
