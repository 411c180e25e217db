// One LSTM step from weights as they lie: a cell, or a sequence of so few rows that packing panels
// would cost more than it saves (about five passes over the weights).
//
//   [i f g o] = act(x W_ih^T + b_ih + h W_hh^T + b_hh);  c = f c + i g;  h = o tanh(c)
//
// Forward, a row of weights meets x or h in a dot product kept as one vector of partial sums; those
// of a vector of units are added up together by interleaving. Unit after unit, the rows of its four
// gates are read side by side: four streams, each in order from its beginning to its end, of which
// prefetchers fetch from memory two to three times what they do of one (benchmarks/bandwidth.cpp).
// A unit's weights are in L1 for the other rows of the batch, which meet them three at a time;
// where registers are few, many_rows.h has another way for some. Backward, rows of
// weights are added up. Both stream 16 H (I + H) bytes of float32 and are bound by the cache or the
// memory that holds them, and from some eight rows on by the multiply-add units.
#pragma once

#include "cpu/isa/activations.h"
#include "cpu/lstm/backward.h"
#include "cpu/lstm/forward.h"
#include "cpu/steps/args.h"
#include "cpu/steps/lanes.h"
#include "cpu/steps/many_rows.h"

namespace charlm {
namespace CHARLM_ISA {

// Rows of a batch that meet a unit's weights while these are in L1, and of those at a time: three
// by four gates are twelve sums, of sixteen registers.
constexpr i64 kNearby = CHARLM_VECTOR_BYTES == 64 ? 4 : 8;
constexpr int kAtATime = CHARLM_VECTOR_BYTES == 64 ? 2 : 3;
// A unit's weights, up to which they fit L1 beside the next's, and all, beyond which to ask ahead
// pays: nearer ones the prefetchers bring.
constexpr i64 kUnitBytes = 16384, kFarBytes = 1 << 22;

// sums[r][gate] += the products, by lane, of row r of x (M rows) with row `gate` of w, whose rows
// of one unit are `apart`; all have K columns. `ahead`: on the way, asks for the next unit's.
template <class T, int M, bool ahead>
CHARLM_INLINE void add_dot_products(Vec<T> (&sums)[M][4], const T* w, i64 apart, i64 K,
                                    const T* x) {
  constexpr int kChains = M == 1 ? 2 : 1;  // eight sums hide the multiply-add latency
  Vec<T> acc[kChains][M][4] = {};
#pragma GCC unroll 4
  for (int r = 0; r < M; ++r)
#pragma GCC unroll 4
    for (int gate = 0; gate < 4; ++gate) acc[0][r][gate] = sums[r][gate];
  const auto add = [&](int turn, const auto& at) __attribute__((always_inline)) {
    Vec<T> v[M];
#pragma GCC unroll 4
    for (int r = 0; r < M; ++r) v[r] = at(x + r * K);
#pragma GCC unroll 4
    for (int gate = 0; gate < 4; ++gate) {
      Vec<T> weights = at(w + gate * apart);
      if constexpr (M > 1) CHARLM_KEEP(weights);  // else loaded again for each row
#pragma GCC unroll 4
      for (int r = 0; r < M; ++r) acc[turn % kChains][r][gate] += weights * v[r];
    }
  };
  const auto ask = [&](i64 k) __attribute__((always_inline)) {
    if (!ahead) return;
#pragma GCC unroll 4
    for (int gate = 0; gate < 4; ++gate) __builtin_prefetch(w + gate * apart + K + k);
  };
  along_columns<T>(K, ask, add);
#pragma GCC unroll 4
  for (int r = 0; r < M; ++r)
#pragma GCC unroll 4
    for (int gate = 0; gate < 4; ++gate)
      sums[r][gate] = kChains == 2 ? acc[0][r][gate] + acc[1 % kChains][r][gate] : acc[0][r][gate];
}

// parts[r][gate][u]: the products, by lane, of M rows with unit `unit`. A function of its own,
// whose sums have the registers to themselves.
template <class T, int M, bool ahead>
__attribute__((noinline)) void unit_products(const StepWeights<T>& w, i64 unit, i64 u, const T* x,
                                             const T* before, Vec<T> (*parts)[4][kLanes<T>]) {
  Vec<T> sums[M][4] = {};
  add_dot_products<T, M, ahead>(sums, w.w_ih + unit * w.I, w.H * w.I, w.I, x);
  add_dot_products<T, M, ahead>(sums, w.w_hh + unit * w.H, w.H * w.H, w.H, before);
#pragma GCC unroll 4
  for (int r = 0; r < M; ++r)
#pragma GCC unroll 4
    for (int gate = 0; gate < 4; ++gate) parts[r][gate][u] = sums[r][gate];
}

// Vectors [p0, p1) of the units, for rows from `begin` on.
template <class T>
void step_of_rows(const StepArgs<T>& a, i64 begin, i64 p0, i64 p1) {
  constexpr int L = kLanes<T>;
  const StepWeights<T>& w = a.weights;
  const i64 H = w.H;
  const i64 unit_bytes = 4 * (w.I + H) * i64{sizeof(T)};
  const bool ahead = unit_bytes <= kUnitBytes && H * unit_bytes > kFarBytes;
  for (i64 p = p0; p < p1; ++p) {
    const i64 first = p * L, units = H - first < L ? H - first : L;
    const int n = static_cast<int>(units);
    T bias[4 * L] = {};
#pragma GCC unroll 4
    for (int gate = 0; gate < 4; ++gate) store(bias + gate * L, bias_of(w, gate * H + first, n));
    for (i64 r0 = begin; r0 < a.B; r0 += kNearby) {
      const i64 rows = a.B - r0 < kNearby ? a.B - r0 : kNearby;
      const T *x = a.x + r0 * w.I, *before = a.before + r0 * H;
      Vec<T> parts[kNearby][4][L];
      for (i64 u = 0; u < L; ++u) {
        const i64 unit = first + (u < units ? u : units - 1);  // what is beyond is not stored
        const auto from = [&](auto count, i64 r) __attribute__((always_inline)) {
          constexpr int M = decltype(count)::value;
          const bool asks = M > 1 && r > 0 && r + M == rows && ahead;
          const auto products = asks ? unit_products<T, M, (M > 1)> : unit_products<T, M, false>;
          products(w, unit, u, x + r * w.I, before + r * H, parts + r);
        };
        // One row alone has another order of summation: it never stands for one of several.
        i64 r = 0;
        for (; rows - r > kAtATime + 1 || rows - r == kAtATime; r += kAtATime)
          from(RowCount<kAtATime>{}, r);
        for (; r + 2 <= rows; r += 2) from(RowCount<2>{}, r);
        if (r < rows) from(RowCount<1>{}, r);
      }
      for (i64 r = 0; r < rows; ++r) {
        Vec<T> sum[4];
#pragma GCC unroll 4
        for (int gate = 0; gate < 4; ++gate) sum[gate] = lane_sums<T>(parts[r][gate]);
        const i64 at = (r0 + r) * H + first;
        T* gates = a.gates ? a.gates + (r0 + r) * 4 * H + first : nullptr;
        // Where gates are kept c is stored twice: there is one running c.
        cell_forward<T>(sum, bias, H, n, a.c + at, a.h + at, gates, a.c + at);
      }
    }
  }
}

// Vectors [p0, p1) of the units, for all rows.
template <class T>
void step(const StepArgs<T>& a, i64 p0, i64 p1) {
  i64 done = 0;
#if defined(CHARLM_MANY_ROWS)
  if ((a.weights.I + a.weights.H) * i64{sizeof(T)} <= kMostDotBytes) {
    for (; done + kMostRowsBeside <= a.B; done += kMostRowsBeside)
      step_of_many<T, kMostRowsBeside>(a, done, p0, p1);
    if (done + kRowsBeside == a.B) {
      step_of_many<T, kRowsBeside>(a, done, p0, p1);
      return;
    }
  }
#endif
  if (done < a.B) step_of_rows<T>(a, done, p0, p1);
}

// The gradients of the gates before activation.
template <class T>
void step_backward(const StepBackwardArgs<T>& a) {
  constexpr int L = kLanes<T>;
  for (i64 r = 0; r < a.B; ++r)
    for (i64 k = 0; k < a.H; k += L) {
      const int n = a.H - k < L ? static_cast<int>(a.H - k) : L;
      const i64 at = r * a.H + k, gate = r * 4 * a.H + k;
      const Vec<T> dh = a.dh ? load_n(a.dh + at, n) : Vec<T>{};
      cell_backward<T>(dh, a.gates + gate, a.c + at, a.before + at, a.H, n, a.dc + at,
                       a.dgates + gate);
    }
}

// Columns [column, column + a panel's width) of out (rows, N) = a (rows, K) w (K, N); `edge`: fewer
// columns are left than that.
template <class T, int MR, bool edge>
CHARLM_INLINE void add_up_columns(const T* a, const T* w, i64 K, i64 N, i64 column, T* out) {
  constexpr int L = kLanes<T>;
  int n[kPanelVectors];
#pragma GCC unroll 4
  for (int v = 0; v < kPanelVectors; ++v) {
    const i64 left = N - column - v * L;
    n[v] = !edge || left > L ? L : left > 0 ? static_cast<int>(left) : 0;
  }
  Tile<T, MR> acc = {};
  const T* row = w + column;
  for (i64 k = 0; k < K; ++k, row += N) {
    Vec<T> b[kPanelVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; ++v) {
      if constexpr (edge)
        b[v] = n[v] ? load_n(row + v * L, n[v]) : Vec<T>{};
      else
        b[v] = load(row + v * L);
    }
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) {
      const Vec<T> s = splat_word(a + r * K + k);
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVectors; ++v) acc.sum[r][v] += s * b[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; ++v)
      if (n[v]) store_n(out + r * N + column + v * L, acc.sum[r][v], n[v]);
}

// Panels [p0, p1) of the columns of out (rows, N) = a (rows, K) w (K, N).
template <class T>
void add_up_rows(const T* a, i64 rows, const T* w, i64 K, i64 N, i64 p0, i64 p1, T* out) {
  for (i64 p = p0; p < p1; ++p) {
    const i64 column = p * kPanelWidth<T>;
    for_row_tiles(rows, [&](auto count, i64 r) __attribute__((always_inline)) {
      constexpr int MR = decltype(count)::value;
      if (column + kPanelWidth<T> <= N)
        add_up_columns<T, MR, false>(a + r * K, w, K, N, column, out + r * N);
      else
        add_up_columns<T, MR, true>(a + r * K, w, K, N, column, out + r * N);
    });
  }
}

// Rows [begin, end) of out (M, N) = the sum over rows r of a (rows, M) of a[r, m] b[r, :], for at
// most kOuterRows of them: out is written once, in order, which bounds it.
template <class T>
void outer_rows(const T* a, i64 rows, i64 M, const T* b, i64 N, i64 begin, i64 end, T* out) {
  constexpr int L = kLanes<T>;
  rest_of_rows<kOuterRows>(rows, 0, [&](auto count, i64) __attribute__((always_inline)) {
    constexpr int MR = decltype(count)::value;
    for (i64 m = begin; m < end; ++m) {
      Vec<T> s[MR];
#pragma GCC unroll 2
      for (int r = 0; r < MR; ++r) s[r] = splat(a[r * M + m]);
      for (i64 k = 0; k < N; k += L) {
        const int n = N - k < L ? static_cast<int>(N - k) : L;
        Vec<T> sum = s[0] * load_n(b + k, n);
#pragma GCC unroll 4
        for (int r = 1; r < MR; ++r) sum += s[r] * load_n(b + r * N + k, n);
        store_n(out + m * N + k, sum, n);
      }
    }
  });
}

}  // namespace CHARLM_ISA
}  // namespace charlm
