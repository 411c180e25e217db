// The weights of an LSTM packed into panels: a vector of units with its four gates.
#pragma once

#include "cpu/isa/panels.h"

namespace charlm {
namespace CHARLM_ISA {

template <class S>
CHARLM_INLINE i64 gate_panels(i64 H) {
  return (H + kLanes<S> - 1) / kLanes<S>;
}

// Elements from one row of input products to the next. Where tiles are tall, a line more than there
// are: rows a power of two apart crowd into few sets of L1.
template <class S>
CHARLM_INLINE i64 pre_width(i64 H) {
  return gate_panels<S>(H) * kPanelWidth<S> + (kTall ? 64 / sizeof(Compute<S>) : 0);
}

// Columns [0, last) of one gate of a vector of units, of which there are `units`, out of rows of K:
// column k to `to` + k W.
// Blocks of L rows by L words are transposed in registers; the edges go element by element.
template <class S, int W>
CHARLM_INLINE void pack_gate(const S* from, i64 units, i64 K, i64 last, S* to) {
  constexpr int L = kLanes<S>, D = kDepth<S>;
  i64 k = 0;
#if defined(CHARLM_HAS_SHUFFLE)
  if (units == L) {
    for (; k + L * D <= last; k += L * D) {
      Vec<Compute<S>> block[L];
#pragma GCC unroll 16
      for (int u = 0; u < L; ++u) block[u] = load_words(from + u * K + k);
      transpose<Compute<S>>(block);
#pragma GCC unroll 16
      for (int j = 0; j < L; ++j) store_words(to + (k + j * D) * W, block[j]);
    }
  }
#endif
  for (; k < last; k += D)
    for (i64 u = 0; u < L; ++u)
      for (int d = 0; d < D; ++d)
        to[k * W + u * D + d] = u < units && k + d < last ? from[u * K + k + d] : S{};
}

// Panel p of w (4H, K): for vector p of units, the gates i f g o, V of them side by side.
template <class S, int V>
void pack_gate_panel(const S* w, i64 H, i64 K, i64 p, S* packed) {
  constexpr int L = kLanes<S>, D = kDepth<S>, W = V * L;
  S* panel = packed + p * panel_size<S>(K);
  const i64 units = H - p * L < L ? H - p * L : L;
  for (i64 gate = 0; gate < 4; ++gate)
    pack_gate<S, W>(w + (gate * H + p * L) * K, units, K, K,
                    panel + gate / V * (panel_size<S>(K) / 4 * V) + gate % V * L * D);
}

template <class S>
void pack_gate_bias(const S* bias, i64 H, i64 p, Compute<S>* packed) {
  constexpr int L = kLanes<S>;
  const int units = H - p * L < L ? static_cast<int>(H - p * L) : L;
  for (i64 gate = 0; gate < 4; ++gate)
    store(packed + p * kPanelWidth<S> + gate * L, load_n(bias + gate * H + p * L, units));
}

}  // namespace CHARLM_ISA
}  // namespace charlm
