// From the sums of the gates to c and h.
#pragma once

#include "cpu/isa/activations.h"

namespace charlm {
namespace CHARLM_ISA {

// One row, one vector of units: the recurrent sums to c and h.
template <class S>
CHARLM_INLINE void cell_forward(const Vec<Compute<S>>* sum, const Compute<S>* pre, i64 H, int n,
                                Compute<S>* c, S* h, S* gates, S* cell) {
  using T = Compute<S>;
  constexpr int L = kLanes<S>;
  const Vec<T> i = sigmoid<S>(sum[0] + load(pre));
  const Vec<T> f = sigmoid<S>(sum[1] + load(pre + L));
  const Vec<T> g = tanh<S>(sum[2] + load(pre + 2 * L));
  const Vec<T> o = sigmoid<S>(sum[3] + load(pre + 3 * L));
  const Vec<T> next = f * load_n(c, n) + i * g;
  store_n(c, next, n);
  store_n(h, o * tanh<S>(next), n);
  if (gates) {
    store_n(gates, i, n);
    store_n(gates + H, f, n);
    store_n(gates + 2 * H, g, n);
    store_n(gates + 3 * H, o, n);
    store_n(cell, next, n);
  }
}

// The same of many rows and vectors in two passes, since one waits for a long chain: 110
// instructions of which a core's queues hold too few to begin the next. The first leaves c and o in
// the places of the sums of i and o, `apart` from gate to gate.
template <class S>
CHARLM_INLINE void cell_gates(Compute<S>* sums, i64 apart, const Compute<S>* pre, i64 H, int n,
                              Compute<S>* c, S* gates, S* cell) {
  using T = Compute<S>;
  constexpr int L = kLanes<S>;
  Vec<T> v[4];
#pragma GCC unroll 4
  for (int gate = 0; gate < 4; ++gate) v[gate] = load(sums + gate * apart) + load(pre + gate * L);
  activate_gates<S>(v);
  const Vec<T> next = v[1] * load_n(c, n) + v[0] * v[2];
  store_n(c, next, n);
  store(sums, next);
  store(sums + 3 * apart, v[3]);
  if (gates) {
#pragma GCC unroll 4
    for (int gate = 0; gate < 4; ++gate) store_n(gates + gate * H, v[gate], n);
    store_n(cell, next, n);
  }
}

// h of what the first pass left: of the k-th, sums_of(k), units_of(k) and the place for it,
// h_of(k).
template <class S, class Units, class Sums, class Outputs>
CHARLM_INLINE void cell_outputs(i64 count, i64 apart, const Units& units_of, const Sums& sums_of,
                                const Outputs& h_of) {
  using T = Compute<S>;
#pragma GCC unroll 1
  for (i64 k = 0; k < count; k += 4) {
    Vec<T> x[4];
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) x[q] = load(sums_of(k + q < count ? k + q : count - 1));
    tanh_of_four<S>(x);
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q)
      if (k + q < count)
        store_n(h_of(k + q), load(sums_of(k + q) + 3 * apart) * x[q], units_of(k + q));
  }
}

}  // namespace CHARLM_ISA
}  // namespace charlm
