// sigmoid and tanh in float32 for AVX2, in 16 instructions each where activations.h takes 27.
//
// 2^y = 2^n 2^r with |r| <= 1/2, y a multiple of x: r comes out of one fused multiply-add, which
// leaves an error of 2e-8 |x|, and 2^r - 1 of a polynomial fitted on the interval for the least
// relative error, 2e-8. The number that rounds y to n carries the exponent's bias, so that a shift
// alone makes 2^n. Limits are the instructions for the smaller and the larger, which a comparison
// and a choice do not become.
#pragma once

namespace charlm {
namespace CHARLM_ISA {

// Between -limit and limit; NaN stays, as the second operand does.
CHARLM_INLINE Vec<float> within(Vec<float> x, float limit) {
  return __builtin_ia32_maxps256(splat(-limit), __builtin_ia32_minps256(splat(limit), x));
}

// Sets scale[k] = 2^n and returns 2^r - 1 in q[k], so that 2^y = scale + scale * q for y = x * by,
// for N at once, step by step side by side: of one after the other, the instructions that wait fill
// the core's queues before the next can begin.
template <int N>
CHARLM_INLINE void power_parts(const Vec<float> (&x)[N], const float (&by)[N], Vec<float> (&q)[N],
                               Vec<float> (&scale)[N]) {
  constexpr float rounder = 12582912.0f + ExpConstants<float>::exponent_bias;  // 1.5 * 2^23 + bias
  constexpr float coefficients[] = {1.3390735e-3f, 9.6182380e-3f, 5.5503573e-2f, 0.24022649f,
                                    0.69314720f};
  Vec<float> r[N];
#pragma GCC unroll 4
  for (int k = 0; k < N; ++k) scale[k] = x[k] * by[k] + rounder;
#pragma GCC unroll 4
  for (int k = 0; k < N; ++k) r[k] = x[k] * by[k] - (scale[k] - rounder);
#pragma GCC unroll 4
  for (int k = 0; k < N; ++k) {
    scale[k] = reinterpret_cast<Vec<float>>(reinterpret_cast<Lanes<float>::I>(scale[k])
                                            << ExpConstants<float>::mantissa_bits);
    q[k] = splat(1.5403512e-4f);
  }
#pragma GCC unroll 8
  for (const float coefficient : coefficients)
#pragma GCC unroll 4
    for (int k = 0; k < N; ++k) q[k] = q[k] * r[k] + coefficient;
#pragma GCC unroll 4
  for (int k = 0; k < N; ++k) q[k] = q[k] * r[k];
}

CHARLM_INLINE Vec<float> sigmoid_of(Vec<float> q, Vec<float> scale) {
  return 1.0f / (q * scale + (scale + 1.0f));
}

CHARLM_INLINE Vec<float> tanh_of(Vec<float> q, Vec<float> scale) {
  const Vec<float> e = q * scale + (scale - 1.0f);
  return e / (e + 2.0f);
}

constexpr float kSigmoidBy = -ExpConstants<float>::log2e, kTanhBy = 2 * ExpConstants<float>::log2e;

// i, f, g, o from their sums.
template <>
CHARLM_INLINE void activate_gates<float>(Vec<float> (&gates)[4]) {
  const float by[4] = {kSigmoidBy, kSigmoidBy, kTanhBy, kSigmoidBy};
  Vec<float> q[4], scale[4];
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k)
    gates[k] =
        within(gates[k], k == 2 ? ExpConstants<float>::tanh_limit : ExpConstants<float>::exp_limit);
  power_parts(gates, by, q, scale);
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k)
    gates[k] = k == 2 ? tanh_of(q[k], scale[k]) : sigmoid_of(q[k], scale[k]);
}

template <>
CHARLM_INLINE void tanh_of_four<float>(Vec<float> (&x)[4]) {
  const float by[4] = {kTanhBy, kTanhBy, kTanhBy, kTanhBy};
  Vec<float> q[4], scale[4];
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) x[k] = within(x[k], ExpConstants<float>::tanh_limit);
  power_parts(x, by, q, scale);
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) x[k] = tanh_of(q[k], scale[k]);
}

template <>
CHARLM_INLINE Vec<float> sigmoid<float>(Vec<float> x) {
  const Vec<float> y[1] = {within(x, ExpConstants<float>::exp_limit)};
  Vec<float> q[1], scale[1];
  power_parts(y, {kSigmoidBy}, q, scale);
  return sigmoid_of(q[0], scale[0]);
}

template <>
CHARLM_INLINE Vec<float> tanh<float>(Vec<float> x) {
  const Vec<float> y[1] = {within(x, ExpConstants<float>::tanh_limit)};
  Vec<float> q[1], scale[1];
  power_parts(y, {kTanhBy}, q, scale);
  return tanh_of(q[0], scale[0]);
}

}  // namespace CHARLM_ISA
}  // namespace charlm
