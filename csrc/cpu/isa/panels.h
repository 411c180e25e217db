// Packed weight panels and the register tile that multiplies rows by one panel.
//
// A matrix (K, N) is cut into panels of kPanelVectors vectors of columns, each stored as K
// consecutive rows, zero-padded: a product streams a panel once from start to end. Where a word
// holds two values of K, rows k and k + 1 of a panel are interleaved, and K is padded to even. The
// tile keeps MR rows x kPanelVectors vectors of sums in registers. One row is bound by the cache
// that feeds the panel, six rows by the multiply-add units.
#pragma once

#include "cpu/isa/vec.h"

namespace charlm {
namespace CHARLM_ISA {

constexpr int kPanelVectors = 4;

template <class S>
constexpr int kPanelWidth = kPanelVectors * kLanes<S>;

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
// wait for the cache, may take K `down` from its end: see forward_step.
template <class S, int MR, bool down = false>
CHARLM_PRODUCT void multiply(Tile<Compute<S>, MR>& tile, const S* a, i64 stride, const S* panel,
                             i64 K) {
  constexpr int D = kDepth<S>, L = D * kLanes<S>, W = D * kPanelWidth<S>;
  Tile<Compute<S>, MR> acc = {};
  if constexpr (MR <= 2) {
    // Few rows leave multiply-add latency exposed: two interleaved chains along K.
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
          acc.sum[r][v] = multiply_add(a, acc.sum[r][v], s0, load_words(row + v * L));
          odd.sum[r][v] = multiply_add(a, odd.sum[r][v], s1, load_words(row + width + v * L));
        }
      }
    }
    if (k + D <= K) {
#pragma GCC unroll 2
      for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < kPanelVectors; ++v)
          acc.sum[r][v] = multiply_add(a, acc.sum[r][v], splat_word(from + r * stride),
                                       load_words(row + v * L));
    }
#pragma GCC unroll 2
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVectors; ++v) acc.sum[r][v] += odd.sum[r][v];
  } else {
    for (i64 k = 0; k + D <= K; k += D) {
      const S* row = panel + k * kPanelWidth<S>;
      Vec<Compute<S>> b[kPanelVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVectors; ++v) b[v] = load_words(row + v * L);
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
          acc.sum[r][v] = multiply_add(a, acc.sum[r][v], splat_last(a + r * stride + K - 1),
                                       load_words(row + v * L));
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
// `padded`, out has whole panels in its rows; otherwise only N columns are written.
template <class S, class O>
void multiply_panels(const S* a, i64 a_stride, i64 rows, const S* packed, i64 K, i64 N, i64 p0,
                     i64 p1, const Compute<S>* bias, O* out, i64 out_stride, bool padded,
                     bool down = false) {
  constexpr int L = kLanes<S>;
  for (i64 q = p0; q < p1; ++q) {
    const i64 p = down ? p0 + p1 - 1 - q : q;
    const S* panel = packed + p * panel_size<S>(K);
    for_row_tiles(rows, [&](auto count, i64 r) __attribute__((always_inline)) {
      constexpr int MR = decltype(count)::value;
      Tile<Compute<S>, MR> tile;
      if (MR <= 2 && down)
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

// packed panel p of the matrix (K, N) whose element (k, n) is source[k * row + n * column].
template <class S>
void pack_panel(const S* source, i64 row, i64 column, i64 K, i64 N, i64 p, S* packed) {
  constexpr int D = kDepth<S>;
  S* to = packed + p * panel_size<S>(K);
  const i64 first = p * kPanelWidth<S>;
  const i64 width = N - first < kPanelWidth<S> ? N - first : kPanelWidth<S>;
  for (i64 k = 0; k < K; k += D, to += D * kPanelWidth<S>) {
    for (int d = 0; d < D; ++d) {
      const S* from = source + (k + d) * row + first * column;
      const i64 there = k + d < K ? width : 0;
      for (i64 n = 0; n < there; ++n) to[n * D + d] = from[n * column];
      for (i64 n = there; n < kPanelWidth<S>; ++n) to[n * D + d] = S{};
    }
  }
}

}  // namespace CHARLM_ISA
}  // namespace charlm
