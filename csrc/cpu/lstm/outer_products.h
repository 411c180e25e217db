// Sums of outer products over rows: out (M, N) (+)= a^T b, the gradient of a weight over a
// sequence.
//
// Rows are taken in blocks of a depth whose part of a stays in L2 and whose panel of b, packed once
// a block, in L1. The register tile is that of panels.h with the columns of a for its rows: a row
// of a holds them side by side, so a is read as it lies. A stride of 4H from row to row is more
// than hardware prefetchers follow, so each tile asks for its columns of the next block. Bound by
// the multiply-add units.
#pragma once

#include "cpu/isa/panels.h"
#include "cpu/lstm/args.h"

namespace charlm {
namespace CHARLM_ISA {

// The sum of `depth` rows for MR columns of a by one panel, `width` columns of which are written.
// A function of its own: inlined, what follows the loop would spill sums within it.
template <class T, int MR>
__attribute__((noinline)) void outer_tile(const T* a, i64 a_stride, const T* panel, i64 depth,
                                          T* out, i64 out_stride, i64 width, bool add) {
  constexpr int L = kLanes<T>;
  Tile<T, MR> acc = {};
  for (i64 k = 0; k < depth; ++k, a += a_stride, panel += kPanelWidth<T>) {
    Vec<T> b[kPanelVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; ++v) b[v] = load(panel + v * L);
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) {
      const Vec<T> s = splat_word(a + r);
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVectors; ++v) acc.sum[r][v] += s * b[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; ++v) {
      const int n = static_cast<int>(width - v * L);  // L or more: a whole vector
      if (n <= 0) continue;
      T* to = out + r * out_stride + v * L;
      Vec<T> sum = acc.sum[r][v];
      if (add) sum += load_n(to, n);
      store_n(to, sum, n);
    }
}

// sums[m] (+)= the sum of a[:, m] over `depth` rows, for `columns` columns.
template <class T>
CHARLM_INLINE void add_columns(const T* a, i64 a_stride, i64 depth, i64 columns, T* sums,
                               bool add) {
  constexpr int L = kLanes<T>;
  for (i64 m = 0; m < columns; m += L) {
    const int n = columns - m < L ? static_cast<int>(columns - m) : L;
    Vec<T> sum = {};
    for (i64 k = 0; k < depth; ++k) sum += load_n(a + k * a_stride + m, n);
    if (add) sum += load_n(sums + m, n);
    store_n(sums + m, sum, n);
  }
}

// Columns [begin, end) of a, which are rows of out. `panel` is scratch of kOuterDepth panel rows.
template <class T>
void outer_products(const OuterProducts<T>& o, i64 begin, i64 end, T* panel) {
  constexpr i64 W = kPanelWidth<T>, line = 64 / static_cast<i64>(sizeof(T));
  // A large out is read and written once a block: fewer, deeper blocks.
  const i64 depth = o.M * o.N > kOuterLarge ? kOuterDepth : kOuterDepth / 4;
  const i64 columns = end - begin;
  for (i64 first = 0; first < o.K || first == 0; first += depth) {
    const i64 rows = o.K - first < depth ? o.K - first : depth;
    const i64 left = o.K - first - rows, ahead = left < depth ? left : depth;
    const bool add = o.add || first > 0;
    const T* a = o.a + first * o.a_stride + begin;
    if (o.sums) add_columns(a, o.a_stride, rows, columns, o.sums + begin, add);
    for (i64 n = 0; n < o.N; n += W) {
      const i64 width = o.N - n < W ? o.N - n : W;
      for (i64 k = 0; k < rows; ++k) {
        const i64 row = first + k;
        const T* from = n + (row < o.split ? o.b + row * o.N : o.b_rest + (row - o.split) * o.N);
        for (i64 v = 0; v < W; v += kLanes<T>)
          store(panel + k * W + v,
                v < width ? load_n(from + v, static_cast<int>(width - v)) : Vec<T>{});
      }
      for_row_tiles(columns, [&](auto count, i64 m) __attribute__((always_inline)) {
        constexpr int MR = decltype(count)::value;
        if (n == 0 && m % line < MR) {
          const T* next = a + rows * o.a_stride + m;
          for (i64 k = 0; k < ahead; ++k) __builtin_prefetch(next + k * o.a_stride, 0, 2);
        }
        outer_tile<T, MR>(a + m, o.a_stride, panel, rows, o.out + (begin + m) * o.N + n, o.N, width,
                          add);
      });
    }
  }
}

}  // namespace CHARLM_ISA
}  // namespace charlm
