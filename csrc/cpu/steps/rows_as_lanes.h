// A step of as many rows as a vector has lanes, from weights as they lie.
//
// x and h are turned so that a vector holds one column of all rows; it meets a weight in all lanes.
// Three units at a time have twelve sums, which take 13 loads for 12 multiply-adds and are whole at
// the end: no lanes to add up, and cells of all rows at once. Bound by the loads, close to the
// multiply-add units; the weights come in twelve streams.
#pragma once

#include "cpu/lstm/forward.h"
#include "cpu/steps/args.h"

#if defined(CHARLM_AVX2) && defined(CHARLM_HAS_SHUFFLE)
#define CHARLM_ROWS_AS_LANES

namespace charlm {
namespace CHARLM_ISA {

constexpr int kUnitsBeside = 3;

// Columns of x and h together, up to which that is faster than row by row: their turned copies lie
// on the stack, and beyond L1 gain nothing.
constexpr i64 kMostTurned = 512;

// to (n, L) = from (L, n)^T, rows of `from` `stride` apart.
template <class T>
CHARLM_INLINE void turn_in(const T* from, i64 stride, int n, T* to) {
  constexpr int L = kLanes<T>;
  Vec<T> block[L];
#pragma GCC unroll 8
  for (int r = 0; r < L; ++r) block[r] = load_n(from + r * stride, n);
  transpose<T>(block);
  for (int k = 0; k < n; ++k) store(to + k * L, block[k]);
}

// The other way.
template <class T>
CHARLM_INLINE void turn_out(const T* from, i64 stride, int n, T* to) {
  constexpr int L = kLanes<T>;
  Vec<T> block[L];
#pragma GCC unroll 8
  for (int k = 0; k < L; ++k) block[k] = load(from + k * L);
  transpose<T>(block);
#pragma GCC unroll 8
  for (int r = 0; r < L; ++r) store_n(to + r * stride, block[r], n);
}

template <class T>
void turn(const T* from, i64 columns, T* to) {
  constexpr int L = kLanes<T>;
  for (i64 k = 0; k < columns; k += L)
    turn_in<T>(from + k, columns, columns - k < L ? static_cast<int>(columns - k) : L, to + k * L);
}

// sums[u][gate] += column k of x times weight k of row `gate` of unit u, rows `apart` for the
// gates, for all K.
template <class T, int U>
CHARLM_INLINE void add_columns(Vec<T> (&sums)[U][4], const T* w, i64 apart, i64 K, const T* x) {
  const T* from[U];
#pragma GCC unroll 4
  for (int u = 0; u < U; ++u) from[u] = w + u * K;
#pragma GCC unroll 4
  for (i64 k = 0; k < K; ++k) {
    Vec<T> v = load(x + k * kLanes<T>);
    CHARLM_KEEP(v);
#pragma GCC unroll 4
    for (int u = 0; u < U; ++u)
#pragma GCC unroll 4
      for (int gate = 0; gate < 4; ++gate) sums[u][gate] += v * splat(from[u][gate * apart + k]);
  }
}

// The same of x and h, turned, for U units from `unit` on. A function of its own, whose sums have
// the registers to themselves.
template <class T, int U>
__attribute__((noinline)) void columns_by_units(const StepWeights<T>& w, i64 unit, const T* x,
                                                const T* before, Vec<T> (*to)[4]) {
  Vec<T> sums[U][4] = {};
  add_columns<T, U>(sums, w.w_ih + unit * w.I, w.H * w.I, w.I, x);
  add_columns<T, U>(sums, w.w_hh + unit * w.H, w.H * w.H, w.H, before);
#pragma GCC unroll 4
  for (int u = 0; u < U; ++u)
#pragma GCC unroll 4
    for (int gate = 0; gate < 4; ++gate) to[u][gate] = sums[u][gate];
}

// Vectors [p0, p1) of the units of as many rows as there are lanes, from row `r0` on.
template <class T>
void step_of_lanes(const StepArgs<T>& a, i64 r0, i64 p0, i64 p1) {
  constexpr int L = kLanes<T>;
  const StepWeights<T>& w = a.weights;
  const i64 H = w.H;
  alignas(CHARLM_VECTOR_BYTES) T turned[kMostTurned * L];
  T *x = turned, *before = turned + w.I * L;
  turn(a.x + r0 * w.I, w.I, x);
  turn(a.before + r0 * H, H, before);
  for (i64 p = p0; p < p1; ++p) {
    const i64 first = p * L, at = r0 * H + first;
    const int n = H - first < L ? static_cast<int>(H - first) : L;
    Vec<T> sums[L][4];
    int u = 0;
    for (; u + kUnitsBeside <= n; u += kUnitsBeside)
      columns_by_units<T, kUnitsBeside>(w, first + u, x, before, sums + u);
    if (u + 2 == n) columns_by_units<T, 2>(w, first + u, x, before, sums + u);
    if (u + 1 == n) columns_by_units<T, 1>(w, first + u, x, before, sums + u);
    alignas(CHARLM_VECTOR_BYTES) T c[L * L], h[L * L] = {};
    turn_in<T>(a.c + at, H, n, c);
#pragma GCC unroll 1
    for (int k = 0; k < n; ++k) {
      T bias[4 * L];
#pragma GCC unroll 4
      for (int gate = 0; gate < 4; ++gate) {
        T b = 0;
        if (w.b_ih) b += w.b_ih[gate * H + first + k];
        if (w.b_hh) b += w.b_hh[gate * H + first + k];
        store(bias + gate * L, splat(b));
      }
      cell_forward<T>(sums[k], bias, H, L, c + k * L, h + k * L, static_cast<T*>(nullptr),
                      static_cast<T*>(nullptr));
    }
    turn_out<T>(c, H, n, a.c + at);
    turn_out<T>(h, H, n, a.h + at);
  }
}

}  // namespace CHARLM_ISA
}  // namespace charlm

#endif
