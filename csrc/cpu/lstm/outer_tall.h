// Sums of outer products where registers are few (isa/tall.h): out (M, N) (+)= a^T b.
//
// Rows are taken in blocks of kOuterDepth. Of each, a part of the columns of a is packed in groups
// of kTallRows, which stay in L2 and are read in order: as a lies, with a stride of a power of two,
// its rows would crowd into few sets of L1. The strip of b, packed too, stays in L1. Bound by the
// multiply-add units.
#pragma once

#include "cpu/isa/tall.h"
#include "cpu/lstm/args.h"

namespace charlm {
namespace CHARLM_ISA {

constexpr i64 kOuterColumns = 192;  // of a, packed at once

template <class T>
constexpr i64 kGroup = kTallRows * kOuterDepth + kLanes<T>;  // of one group, with room behind it

template <class T>
constexpr i64 kOuterScratch = kOuterColumns / kTallRows * kGroup<T> + kOuterDepth * kTallWidth<T>;

// Columns [0, columns) of a, `rows` rows, in groups. `room`: columns that may be read.
template <class T>
void pack_groups(const T* a, i64 a_stride, i64 rows, i64 columns, i64 room, T* groups) {
  constexpr int L = kLanes<T>, line = 64 / static_cast<int>(sizeof(T));
  // Whole vectors: what one writes behind its group's values, the next row overwrites.
  const i64 whole = columns + L <= room ? columns : columns / kTallRows * kTallRows - kTallRows;
  for (i64 k = 0; k < rows; ++k, a += a_stride) {
    for (i64 m = 0; m < columns; m += line) __builtin_prefetch(a + 4 * a_stride + m, 0, 3);
    T* to = groups + k * kTallRows;
    i64 m = 0;
    for (; m < whole; m += kTallRows, to += kGroup<T>)
#pragma GCC unroll 2
      for (int v = 0; v < kTallRows; v += L) store(to + v, load(a + m + v));
    for (; m < columns; m += kTallRows, to += kGroup<T>)
      for (int r = 0; r < kTallRows; ++r) to[r] = m + r < columns ? a[m + r] : T(0);
  }
}

// sums[m] (+)= the sum of column m of a.
template <class T>
void add_groups(const T* groups, i64 rows, i64 columns, T* sums, bool add) {
  constexpr int L = kLanes<T>, V = (kTallRows + L - 1) / L, chains = 4;
  for (i64 m = 0; m < columns; m += kTallRows, groups += kGroup<T>) {
    Vec<T> sum[chains][V] = {};
    i64 k = 0;
    for (; k + chains <= rows; k += chains)
#pragma GCC unroll 4
      for (int c = 0; c < chains; ++c)
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) sum[c][v] += load(groups + (k + c) * kTallRows + v * L);
    for (; k < rows; ++k)
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[0][v] += load(groups + k * kTallRows + v * L);
    T total[V * L];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v)
      store(total + v * L, (sum[0][v] + sum[1][v]) + (sum[2][v] + sum[3][v]));
    for (int r = 0; r < kTallRows && m + r < columns; ++r)
      sums[m + r] = add ? sums[m + r] + total[r] : total[r];
  }
}

// Columns [begin, end) of a, which are rows of out.
template <class T>
void outer_tall(const OuterProducts<T>& o, i64 begin, i64 end, T* scratch) {
  constexpr i64 W = kTallWidth<T>;
  T *strip = scratch, *groups = scratch + kOuterDepth * W;
  for (i64 first = 0; first < o.K || first == 0; first += kOuterDepth) {
    const i64 rows = o.K - first < kOuterDepth ? o.K - first : kOuterDepth;
    const bool add = o.add || first > 0;
    for (i64 m = begin; m < end; m += kOuterColumns) {
      const i64 columns = end - m < kOuterColumns ? end - m : kOuterColumns;
      pack_groups(o.a + first * o.a_stride + m, o.a_stride, rows, columns, o.M - m, groups);
      if (o.sums) add_groups(groups, rows, columns, o.sums + m, add);
      for (i64 n = 0; n < o.N; n += W) {
        const i64 width = o.N - n < W ? o.N - n : W;
        for (i64 k = 0; k < rows; ++k) {
          const i64 row = first + k;
          const T* from = n + (row < o.split ? o.b + row * o.N : o.b_rest + (row - o.split) * o.N);
          for (i64 v = 0; v < W; v += kLanes<T>)
            store(strip + k * W + v,
                  v < width ? load_n(from + v, static_cast<int>(width - v)) : Vec<T>{});
        }
        T* out = o.out + m * o.N + n;
        if (width == W)
          tall_groups(groups, kGroup<T>, columns, strip, rows, add, out, o.N);
        else
          tall_edge(columns, add, out, o.N, width, [&](i64 r, i64 count, T* block, i64 stride) {
            tall_groups(groups + r / kTallRows * kGroup<T>, kGroup<T>, count, strip, rows, true,
                        block, stride);
          });
      }
    }
  }
}

}  // namespace CHARLM_ISA
}  // namespace charlm
