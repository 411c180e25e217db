// Sums of outer products where registers are few (isa/tall.h): out (M, N) (+)= a^T b.
//
// Rows are taken in blocks of kOuterDepth. Of each, a part of the columns of a is packed in groups
// of kTallRows, which are read in order: as a lies, with a stride of a power of two,
// its rows would crowd into few sets of L1. kOuterWide columns of b are packed as strips once for
// all groups; a strip stays in L1 for one part of them, while the next is asked for. Bound by the
// multiply-add units.
#pragma once

#include "cpu/isa/tall.h"
#include "cpu/lstm/args.h"

namespace charlm {
namespace CHARLM_ISA {

constexpr i64 kOuterColumns = 192;  // of a, packed at once
constexpr i64 kOuterWide = 512;     // of b

template <class T>
constexpr i64 kGroup = kTallRows * kOuterDepth + kLanes<T>;  // of one group, with room behind it

// Of one strip, a line longer than it is: strips a power of two apart crowd into few sets of L1.
template <class T>
constexpr i64 kStrip = kOuterDepth * kTallWidth<T> + kLine<T>;

template <class T>
constexpr i64 kOuterScratch =
    kOuterColumns / kTallRows * kGroup<T> + kOuterWide / kTallWidth<T> * kStrip<T>;

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

// Columns [0, columns) of b, rows [first, first + rows), as strips one behind the other.
template <class T>
void pack_strips(const OuterProducts<T>& o, i64 first, i64 rows, i64 n, i64 columns, T* strips) {
  constexpr i64 W = kTallWidth<T>, L = kLanes<T>;
  for (i64 k = 0; k < rows; ++k) {
    const i64 row = first + k;
    const T* from = n + (row < o.split ? o.b + row * o.N : o.b_rest + (row - o.split) * o.N);
    T* to = strips + k * W;
    i64 c = 0;
    for (; c + W <= columns; c += W, to += kStrip<T>)
#pragma GCC unroll 4
      for (i64 v = 0; v < W; v += L) store(to + v, load(from + c + v));
    for (i64 v = 0; c < columns && v < W; v += L)
      store(to + v,
            c + v < columns ? load_n(from + c + v, static_cast<int>(columns - c - v)) : Vec<T>{});
  }
}

// Columns [begin, end) of a, which are rows of out.
template <class T>
void outer_tall(const OuterProducts<T>& o, i64 begin, i64 end, T* scratch) {
  constexpr i64 W = kTallWidth<T>;
  T *strips = scratch, *groups = scratch + kOuterWide / W * kStrip<T>;
  for (i64 wide = 0; wide < o.N || wide == 0; wide += kOuterWide) {
    const i64 most = o.N - wide < kOuterWide ? o.N - wide : kOuterWide;
    for (i64 first = 0; first < o.K || first == 0; first += kOuterDepth) {
      const i64 rows = o.K - first < kOuterDepth ? o.K - first : kOuterDepth;
      const bool add = o.add || first > 0;
      pack_strips(o, first, rows, wide, most, strips);
      for (i64 m = begin; m < end; m += kOuterColumns) {
        const i64 columns = end - m < kOuterColumns ? end - m : kOuterColumns;
        pack_groups(o.a + first * o.a_stride + m, o.a_stride, rows, columns, o.M - m, groups);
        if (o.sums && wide == 0) add_groups(groups, rows, columns, o.sums + m, add);
        const T* strip = strips;
        for (i64 n = 0; n < most; n += W, strip += kStrip<T>) {
          const i64 width = most - n < W ? most - n : W;
          T* out = o.out + m * o.N + wide + n;
          if (width == W)
            tall_groups(groups, kGroup<T>, columns, strip, rows, strip + kStrip<T>, add, out, o.N);
          else
            tall_edge(columns, add, out, o.N, width, [&](i64 r, i64 count, T* block, i64 stride) {
              tall_groups(groups + r / kTallRows * kGroup<T>, kGroup<T>, count, strip, rows, strip,
                          true, block, stride);
            });
        }
      }
    }
  }
}

}  // namespace CHARLM_ISA
}  // namespace charlm
