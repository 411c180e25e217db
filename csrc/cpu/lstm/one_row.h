// One row by packed panels: a single sequence, whose steps wait for their weights.
//
// Three panels pass side by side, so that twelve sums hide the multiply-add latency, and the
// weights come as three streams: of one, prefetchers keep too few lines on their way
// (docs/latency.md). Each sum runs along K in order or against it, so that a unit's bits do not
// depend on the panels beside its own.
#pragma once

#include "cpu/isa/panels.h"

namespace charlm {
namespace CHARLM_ISA {

constexpr int kBeside = 3;

// Where 16 registers must hold the sums, a function of its own: inlined, the constants of the
// activations that follow take some, and the loop keeps sums on the stack.
#if CHARLM_VECTOR_BYTES == 64
#define CHARLM_ROW CHARLM_INLINE
#else
#define CHARLM_ROW __attribute__((noinline))
#endif

// tile[p].sum[0] = a . panel p, K long; for P panels one after another, along K or from its end.
template <class S, int P, bool down>
CHARLM_ROW void multiply_row(Tile<Compute<S>, 1> (&tile)[P], const S* a, const S* panel, i64 K) {
  constexpr int D = kDepth<S>, L = D * kLanes<S>, W = D * kPanelWidth<S>;
  Tile<Compute<S>, 1> acc[P] = {};
  const i64 size = panel_size<S>(K), words = K / D;
  const auto add = [&](i64 k, Vec<Compute<S>> s) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVectors; ++v)
        acc[p].sum[0][v] =
            multiply_add(a, acc[p].sum[0][v], s, load_words(panel + p * size + k * W + v * L));
  };
  for (i64 q = 0; q < words; ++q) {
    const i64 k = down ? words - 1 - q : q;
    add(k, splat_word(a + k * D));
  }
  if constexpr (D > 1) {
    // The row's last value alone: what follows it in memory may be anything, NaN included.
    if (K % D) add(words, splat_last(a + K - 1));
  }
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) tile[p] = acc[p];
}

// Calls body(sums, panel) for panels [p0, p1), from the last to the first if `back`, each with its
// four vectors of sums; those run along K, or from its end if `down`.
template <class S, bool down, class Body>
CHARLM_INLINE void for_panels_of_row(const S* a, const S* packed, i64 K, i64 p0, i64 p1, bool back,
                                     const Body& body) {
  for (i64 left = p1 - p0; left > 0;) {
    const i64 count = left < kBeside ? left : kBeside;
    const i64 p = back ? p0 + left - count : p1 - left;
    const S* panel = packed + p * panel_size<S>(K);
    Tile<Compute<S>, 1> tile[kBeside];
    if (count == kBeside)
      multiply_row<S, kBeside, down>(tile, a, panel, K);
    else
      for (i64 q = 0; q < count; ++q)
        multiply_row<S, 1, down>(reinterpret_cast<Tile<Compute<S>, 1>(&)[1]>(tile[q]), a,
                                 panel + q * panel_size<S>(K), K);
#pragma GCC unroll 1  // unrolled, the activations swell the code and gain nothing
    for (i64 q = 0; q < count; ++q) body(tile[q].sum[0], p + q);
    left -= count;
  }
}

}  // namespace CHARLM_ISA
}  // namespace charlm
