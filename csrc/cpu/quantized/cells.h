// Gates to c and h, apart from the products, so that one vector's activations overlap the next's.
//
//   c' = sigmoid(f) c + sigmoid(i) tanh(g);  h = sigmoid(o) tanh(c')
//
// With E(x) = e^-x, sigmoid(x) = 1 / (1 + E(x)) and tanh(x) = (1 - E(2x)) / (1 + E(2x)), brought to
// one denominator: two divisions in the place of five, which after 8-bit products would take as
// long as they do. Errors are some 3e-7, absolute.
#pragma once

#include "cpu/isa/dot.h"
#include "cpu/isa/panels.h"
#include "cpu/quantized/args.h"

namespace charlm {
namespace CHARLM_ISA {

// e^-x for |x| up to 20, beyond which sigmoid and tanh are 0, 1 and -1 to 2e-9; the product of
// three stays finite. NaN stays.
//
// 2^y = 2^n 2^r with n the nearest integer to y and |r| <= 1/2; the polynomial is fitted to 2^r
// with the least relative error, 8e-8.
CHARLM_INLINE Vec<float> exp_minus(Vec<float> x) {
  constexpr float limit = 20.0f, rounder = 12582912.0f;  // 1.5 * 2^23: n in the low bits
  const Vec<float> y = within(x, limit) * -1.44269504f;
  const Vec<float> shifted = y + rounder;
  const Vec<float> r = y - (shifted - rounder);
  Vec<float> p = splat(0.001327647129f);
  p = p * r + 0.009675540961f;
  p = p * r + 0.05550713092f;
  p = p * r + 0.2402212024f;
  p = p * r + 0.6931469440f;
  p = p * r + 1.0f;
  using I = typename Lanes<float>::I;
  return reinterpret_cast<Vec<float>>(reinterpret_cast<I>(p) +
                                      (reinterpret_cast<I>(shifted) << 23));
}

// Vectors [p0, p1) of the units of all rows. c first and h behind it: the chain from gates to h is
// so long that a core has room for two of them only, and waits.
inline void int8_cells(const Int8Cells& a, i64 rows, i64 p0, i64 p1) {
  constexpr int L = kLanes<float>;
  const auto units = [&](i64 p) { return a.H - p * L < L ? static_cast<int>(a.H - p * L) : L; };
  for (i64 r = 0; r < rows; ++r) {
    const float* row = a.gates + r * a.gates_stride;
    for (i64 p = p0; p < p1; ++p) {
      const float* gates = row + p * kPanelWidth<float>;
      float* to = a.c + r * a.H + p * L;
      const Vec<float> i = exp_minus(load(gates)), f = exp_minus(load(gates + L));
      const Vec<float> g = exp_minus(load(gates + 2 * L) * 2.0f);
      const Vec<float> both = (1.0f + i) * (1.0f + g);
      const Vec<float> c =
          (load_n(to, units(p)) * both + (1.0f - g) * (1.0f + f)) / (both * (1.0f + f));
      store_n(to, c, units(p));
    }
    for (i64 p = p0; p < p1; ++p) {
      const i64 at = r * a.H + p * L;
      const Vec<float> o = exp_minus(load(row + p * kPanelWidth<float> + 3 * L));
      const Vec<float> e = exp_minus(load_n(a.c + at, units(p)) * 2.0f);
      store_n(a.h + at, (1.0f - e) / ((1.0f + o) * (1.0f + e)), units(p));
    }
  }
}

}  // namespace CHARLM_ISA
}  // namespace charlm
