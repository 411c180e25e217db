// Packed weight panels and the register tile that multiplies rows by one panel.
//
// A matrix (K, N) is cut into panels of kPanelVectors vectors of columns, each stored as K
// consecutive rows, zero-padded: a product streams a panel once from start to end. The tile
// keeps MR rows x kPanelVectors vectors of sums in registers. One row is bound by the cache
// that feeds the panel, six rows by the multiply-add units.
#pragma once

#include "vec.h"

namespace charlm {
namespace CHARLM_ISA {

constexpr int kPanelVectors = 4;

template <class T>
constexpr int kPanelWidth = kPanelVectors * kLanes<T>;

template <class T>
CHARLM_INLINE i64 panel_count(i64 columns) {
  return (columns + kPanelWidth<T> - 1) / kPanelWidth<T>;
}

template <class T, int MR>
struct Tile {
  Vec<T> sum[MR][kPanelVectors];
};

// sum[r][v] = a[r, :] . panel[:, v] for MR rows of a, K long and `stride` apart. Few rows, which
// wait for the cache, may take K `down` from its end: see forward_step.
template <class T, int MR, bool down = false>
CHARLM_INLINE void multiply(Tile<T, MR>& tile, const T* a, i64 stride, const T* panel, i64 K) {
  constexpr int L = kLanes<T>;
  Tile<T, MR> acc = {};
  if constexpr (MR <= 2) {
    // Few rows leave multiply-add latency exposed: two interleaved chains along K.
    Tile<T, MR> odd = {};
    constexpr i64 next = down ? -1 : 1, width = next * kPanelWidth<T>;
    const T* row = down ? panel + (K - 1) * kPanelWidth<T> : panel;
    if (down) a += K - 1;
    i64 k = 0;
    for (; k + 2 <= K; k += 2, row += 2 * width, a += 2 * next) {
#pragma GCC unroll 2
      for (int r = 0; r < MR; ++r) {
        const Vec<T> s0 = splat(a[r * stride]);
        const Vec<T> s1 = splat(a[r * stride + next]);
#pragma GCC unroll 4
        for (int v = 0; v < kPanelVectors; ++v) {
          acc.sum[r][v] += s0 * load(row + v * L);
          odd.sum[r][v] += s1 * load(row + width + v * L);
        }
      }
    }
    if (k < K) {
#pragma GCC unroll 2
      for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < kPanelVectors; ++v)
          acc.sum[r][v] += splat(a[r * stride]) * load(row + v * L);
    }
#pragma GCC unroll 2
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVectors; ++v) acc.sum[r][v] += odd.sum[r][v];
  } else {
    for (i64 k = 0; k < K; ++k) {
      const T* row = panel + k * kPanelWidth<T>;
      Vec<T> b[kPanelVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVectors; ++v) b[v] = load(row + v * L);
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r) {
        const Vec<T> s = splat(a[r * stride + k]);
#pragma GCC unroll 4
        for (int v = 0; v < kPanelVectors; ++v) acc.sum[r][v] += s * b[v];
      }
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
template <class T>
void multiply_panels(const T* a, i64 a_stride, i64 rows, const T* packed, i64 K, i64 N, i64 p0,
                     i64 p1, const T* bias, T* out, i64 out_stride, bool padded,
                     bool down = false) {
  constexpr int L = kLanes<T>;
  for (i64 q = p0; q < p1; ++q) {
    const i64 p = down ? p0 + p1 - 1 - q : q;
    const T* panel = packed + p * K * kPanelWidth<T>;
    for_row_tiles(rows, [&](auto count, i64 r) __attribute__((always_inline)) {
      constexpr int MR = decltype(count)::value;
      Tile<T, MR> tile;
      if (MR <= 2 && down)
        multiply<T, MR, true>(tile, a + r * a_stride, a_stride, panel, K);
      else
        multiply<T, MR>(tile, a + r * a_stride, a_stride, panel, K);
#pragma GCC unroll 8
      for (int q = 0; q < MR; ++q)
#pragma GCC unroll 4
        for (int v = 0; v < kPanelVectors; ++v) {
          const i64 column = p * kPanelWidth<T> + v * L;
          Vec<T> s = tile.sum[q][v];
          if (bias) s += load(bias + column);
          T* to = out + (r + q) * out_stride + column;
          if (padded || column + L <= N)
            store(to, s);
          else if (column < N)
            store_n(to, s, static_cast<int>(N - column));
        }
    });
  }
}

// packed panel p of the matrix (K, N) whose element (k, n) is source[k * row + n * column].
template <class T>
void pack_panel(const T* source, i64 row, i64 column, i64 K, i64 N, i64 p, T* packed) {
  T* to = packed + p * K * kPanelWidth<T>;
  const i64 first = p * kPanelWidth<T>;
  const i64 width = N - first < kPanelWidth<T> ? N - first : kPanelWidth<T>;
  for (i64 k = 0; k < K; ++k, to += kPanelWidth<T>) {
    const T* from = source + k * row + first * column;
    for (i64 n = 0; n < width; ++n) to[n] = from[n * column];
    for (i64 n = width; n < kPanelWidth<T>; ++n) to[n] = T(0);
  }
}

}  // namespace CHARLM_ISA
}  // namespace charlm
