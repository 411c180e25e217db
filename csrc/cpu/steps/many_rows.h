// A step of four or eight rows where registers are few, from weights as they lie.
//
// Three units' rows of one gate, side by side in memory, meet four rows of x and h: twelve sums, by
// lane, which take 7 loads for 12 multiply-adds. Gates of one unit in their place, as one row has
// them, lie a power of two apart where H is one, and crowd into few sets of L1. The lanes of a
// vector of units are added up together, and the cells of three such vectors, all rows, go in two
// passes (lstm/cells.h). Bound by the multiply-add units; what comes next is asked for on the way.
#pragma once

#include "cpu/isa/tall.h"
#include "cpu/lstm/cells.h"
#include "cpu/steps/args.h"
#include "cpu/steps/lanes.h"

#if defined(CHARLM_AVX2)
#define CHARLM_MANY_ROWS

namespace charlm {
namespace CHARLM_ISA {

constexpr int kUnitsBeside = 3, kRowsBeside = 4;  // of a tile
constexpr int kVectorsBeside = 3;                 // of units, whose sums are kept
constexpr i64 kMostRowsBeside = 8;
constexpr i64 kMostDotBytes = 2048;  // of a row of x and h: eight of them stay in L1

// Rows of w and of x, K columns each; `next`: where the rows of w are that come after the last.
template <class T>
struct DotPart {
  const T *w, *x, *next;
  i64 K;
};

// parts[u][r]: the products, by lane, of row r of x with row `unit` + u of w, of both parts.
// `ahead`: on the way, asks for the rows of w that come after, or if these are the last, for those
// of next.
template <class T, int U, bool ahead>
__attribute__((noinline)) void dot_tile(const DotPart<T> (&both)[2], i64 row, i64 unit, bool last,
                                        Vec<T> (*parts)[kMostRowsBeside]) {
  constexpr int M = kRowsBeside;
  Vec<T> sums[U][M] = {};
#pragma GCC unroll 1
  for (const DotPart<T>& part : both) {
    const i64 K = part.K;
    const T *w = part.w + unit * K, *x = part.x + row * K, *next = last ? part.next : w + U * K;
    const auto meet = [&](int, const auto& at) __attribute__((always_inline)) {
      Vec<T> b[U];
#pragma GCC unroll 4
      for (int u = 0; u < U; ++u) {
        b[u] = at(w + u * K);
        CHARLM_KEEP(b[u]);
      }
#pragma GCC unroll 4
      for (int r = 0; r < M; ++r) {
        const Vec<T> v = at(x + r * K);
#pragma GCC unroll 4
        for (int u = 0; u < U; ++u) sums[u][r] += v * b[u];
      }
    };
    const auto ask = [&](i64 k) __attribute__((always_inline)) {
      if (!ahead) return;
#pragma GCC unroll 4
      for (int u = 0; u < U; ++u) __builtin_prefetch(next + u * K + k);
    };
    along_columns<T>(K, ask, meet);
  }
#pragma GCC unroll 4
  for (int u = 0; u < U; ++u)
#pragma GCC unroll 4
    for (int r = 0; r < M; ++r) parts[u][r] = sums[u][r];
}

// The same of `units` and `rows`, in tiles; the last of the rows ask for what comes next.
template <class T, i64 rows>
CHARLM_INLINE void dot_tiles(const DotPart<T> (&both)[2], i64 unit, i64 units,
                             Vec<T> (*parts)[kMostRowsBeside]) {
  for (i64 u = 0; u < units; u += kUnitsBeside)
    for (i64 r = 0; r < rows; r += kRowsBeside) {
      const auto go = [&](auto beside) __attribute__((always_inline)) {
        constexpr int U = decltype(beside)::value;
        const auto tile = r + kRowsBeside < rows ? dot_tile<T, U, false> : dot_tile<T, U, true>;
        tile(both, r, unit + u, units - u <= kUnitsBeside,
             reinterpret_cast<Vec<T>(*)[kMostRowsBeside]>(&parts[u][r]));
      };
      rest_of_rows<kUnitsBeside>(units - u < kUnitsBeside ? units - u : kUnitsBeside, 0,
                                 [&](auto count, i64) { go(count); });
    }
}

// Vectors [p0, p1) of the units, for `rows` rows from r0 on, kRowsBeside or kMostRowsBeside.
template <class T, i64 rows>
void step_of_many(const StepArgs<T>& a, i64 r0, i64 p0, i64 p1) {
  constexpr i64 L = kLanes<T>, V = kVectorsBeside;
  const StepWeights<T>& w = a.weights;
  const i64 H = w.H;
  const T *x = a.x + r0 * w.I, *before = a.before + r0 * H;
  const auto units_of = [&](i64 p) { return H - p * L < L ? static_cast<int>(H - p * L) : L; };
  for (i64 p = p0; p < p1; p += V) {
    const i64 vectors = p1 - p < V ? p1 - p : V, first = p * L;
    const i64 units = H - first < vectors * L ? H - first : vectors * L;
    T sums[V * kMostRowsBeside][4][L], bias[V][4][L];
    for (i64 gate = 0; gate < 4; ++gate) {
      Vec<T> parts[V * L][kMostRowsBeside];
      for (i64 u = units; u < vectors * L; ++u)
        for (i64 r = 0; r < rows; ++r) parts[u][r] = Vec<T>{};
      const i64 from = gate * H, end = first + units;
      const i64 next = gate < 3 ? from + H + first : p + V < p1 ? end : 0;
      dot_tiles<T, rows>({{w.w_ih + from * w.I, x, w.w_ih + next * w.I, w.I},
                          {w.w_hh + from * H, before, w.w_hh + next * H, H}},
                         first, units, parts);
      for (i64 v = 0; v < vectors; ++v) {
        const int n = units_of(p + v);
        const i64 at = gate * H + first + v * L;
        store(bias[v][gate], bias_of(w, at, n));
        for (i64 r = 0; r < rows; ++r) {
          Vec<T> lanes[L];
#pragma GCC unroll 8
          for (i64 u = 0; u < L; ++u) lanes[u] = parts[v * L + u][r];
          store(sums[v * rows + r][gate], lane_sums<T>(lanes));
        }
      }
    }
    const auto at_of = [&](i64 k) { return (r0 + k % rows) * H + first + k / rows * L; };
    for (i64 k = 0; k < vectors * rows; ++k) {
      T* gates = a.gates ? a.gates + (r0 + k % rows) * 4 * H + first + k / rows * L : nullptr;
      T* c = a.c + at_of(k);
      // Where gates are kept c is stored twice: there is one running c.
      cell_gates<T>(sums[k][0], L, bias[k / rows][0], H, units_of(p + k / rows), c, gates, c);
    }
    cell_outputs<T>(
        vectors * rows, L, [&](i64 k) { return units_of(p + k / rows); },
        [&](i64 k) { return sums[k][0]; }, [&](i64 k) { return a.h + at_of(k); });
  }
}

}  // namespace CHARLM_ISA
}  // namespace charlm

#endif
