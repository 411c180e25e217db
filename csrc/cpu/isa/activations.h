// exp-based sigmoid and tanh on vectors, accurate to about 2 ulp everywhere.
//
// Range reduction x = n ln 2 + r, |r| <= ln 2 / 2 (Cody and Waite, 1980, the ln 2 split in
// two parts), then the Taylor polynomial of expm1(r). tanh(x) = expm1(2x) / (expm1(2x) + 2)
// keeps full relative precision near zero with one division and no branch.
#pragma once

#include "cpu/isa/vec.h"

namespace charlm {
namespace CHARLM_ISA {

template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  static constexpr float log2e = 1.44269504088896341f;
  static constexpr float ln2_hi = 0.693359375f;
  static constexpr float ln2_lo = -2.12194440054690583e-4f;
  // Adding 1.5 * 2^23 rounds to an integer, left in the low mantissa bits.
  static constexpr float rounder = 12582912.0f;
  static constexpr int mantissa_bits = 23;
  static constexpr int exponent_bias = 127;
  static constexpr float exp_limit = 87.0f;   // keeps 2^n a normal number
  static constexpr float tanh_limit = 20.0f;  // tanh is 1 to the last bit from 9.1 on
};

template <>
struct ExpConstants<double> {
  static constexpr double log2e = 1.44269504088896340736;
  static constexpr double ln2_hi = 6.93145751953125e-1;
  static constexpr double ln2_lo = 1.42860682030941723212e-6;
  static constexpr double rounder = 6755399441055744.0;
  static constexpr int mantissa_bits = 52;
  static constexpr int exponent_bias = 1023;
  static constexpr double exp_limit = 708.0;
  static constexpr double tanh_limit = 40.0;
};

CHARLM_INLINE Vec<float> expm1_polynomial(Vec<float> r) {
  Vec<float> q = splat(1.0f / 5040);
  q = q * r + 1.0f / 720;
  q = q * r + 1.0f / 120;
  q = q * r + 1.0f / 24;
  q = q * r + 1.0f / 6;
  q = q * r + 0.5f;
  return q * (r * r) + r;
}

CHARLM_INLINE Vec<double> expm1_polynomial(Vec<double> r) {
  Vec<double> q = splat(1.0 / 6227020800.0);
  q = q * r + 1.0 / 479001600;
  q = q * r + 1.0 / 39916800;
  q = q * r + 1.0 / 3628800;
  q = q * r + 1.0 / 362880;
  q = q * r + 1.0 / 40320;
  q = q * r + 1.0 / 5040;
  q = q * r + 1.0 / 720;
  q = q * r + 1.0 / 120;
  q = q * r + 1.0 / 24;
  q = q * r + 1.0 / 6;
  q = q * r + 0.5;
  return q * (r * r) + r;
}

// Sets `scale` = 2^n and returns expm1(r), so that exp(x) = scale + scale * expm1(r).
template <class T>
CHARLM_INLINE Vec<T> exp_parts(Vec<T> x, Vec<T>& scale) {
  using C = ExpConstants<T>;
  using I = typename Lanes<T>::I;
  const Vec<T> shifted = x * C::log2e + C::rounder;
  const Vec<T> n = shifted - C::rounder;
  const Vec<T> r = (x - n * C::ln2_hi) - n * C::ln2_lo;
  // The shift drops the rounder's own bits and leaves n + bias as an exponent.
  const I bits = (reinterpret_cast<I>(shifted) + C::exponent_bias) << C::mantissa_bits;
  scale = reinterpret_cast<Vec<T>>(bits);
  return expm1_polynomial(r);
}

// Comparisons are false for NaN, which so passes through.
template <class T>
CHARLM_INLINE Vec<T> clamp(Vec<T> x, T limit) {
  x = x > limit ? splat(limit) : x;
  return x < -limit ? splat(-limit) : x;
}

template <class T>
CHARLM_INLINE Vec<T> exp(Vec<T> x) {
  Vec<T> scale;
  const Vec<T> p = exp_parts<T>(clamp<T>(x, ExpConstants<T>::exp_limit), scale);
  return p * scale + scale;
}

// Named by what they are stored as: there may be a faster one for what is rounded anyway.
template <class S>
CHARLM_INLINE Vec<Compute<S>> sigmoid(Vec<Compute<S>> x) {
  using T = Compute<S>;
  return T(1) / (T(1) + exp<T>(-x));
}

template <class S>
CHARLM_INLINE Vec<Compute<S>> tanh(Vec<Compute<S>> x) {
  using T = Compute<S>;
  Vec<T> scale;
  const Vec<T> p = exp_parts<T>(clamp<T>(x, ExpConstants<T>::tanh_limit) * T(2), scale);
  const Vec<T> e = p * scale + (scale - T(1));
  return e / (e + T(2));
}

// i, f, g and o from their sums, and the tanh of four vectors: as above, at once where that gains.
template <class S>
CHARLM_INLINE void activate_gates(Vec<Compute<S>> (&gates)[4]) {
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) gates[k] = k == 2 ? tanh<S>(gates[k]) : sigmoid<S>(gates[k]);
}
template <class S>
CHARLM_INLINE void tanh_of_four(Vec<Compute<S>> (&x)[4]) {
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) x[k] = tanh<S>(x[k]);
}

}  // namespace CHARLM_ISA
}  // namespace charlm

#if defined(CHARLM_BF16)
#include "cpu/isa/activations_bf16.h"
#endif
#if defined(CHARLM_AVX2)
#include "cpu/isa/activations_avx2.h"
#endif
