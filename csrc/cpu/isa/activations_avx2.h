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

// Sets `scale` = 2^n and returns 2^r - 1, so that 2^y = scale + scale * (2^r - 1) for y = x * by.
CHARLM_INLINE Vec<float> power_parts(Vec<float> x, float by, Vec<float>& scale) {
  constexpr float rounder = 12582912.0f + ExpConstants<float>::exponent_bias;  // 1.5 * 2^23 + bias
  const Vec<float> shifted = x * by + rounder;
  const Vec<float> r = x * by - (shifted - rounder);
  scale = reinterpret_cast<Vec<float>>(reinterpret_cast<Lanes<float>::I>(shifted)
                                       << ExpConstants<float>::mantissa_bits);
  Vec<float> q = splat(1.5403512e-4f);
  q = q * r + 1.3390735e-3f;
  q = q * r + 9.6182380e-3f;
  q = q * r + 5.5503573e-2f;
  q = q * r + 0.24022649f;
  q = q * r + 0.69314720f;
  return q * r;
}

template <>
CHARLM_INLINE Vec<float> sigmoid<float>(Vec<float> x) {
  Vec<float> scale;
  const Vec<float> p =
      power_parts(within(x, ExpConstants<float>::exp_limit), -ExpConstants<float>::log2e, scale);
  return 1.0f / (p * scale + (scale + 1.0f));
}

template <>
CHARLM_INLINE Vec<float> tanh<float>(Vec<float> x) {
  Vec<float> scale;
  const Vec<float> p = power_parts(within(x, ExpConstants<float>::tanh_limit),
                                   2 * ExpConstants<float>::log2e, scale);
  const Vec<float> e = p * scale + (scale - 1.0f);
  return e / (e + 2.0f);
}

}  // namespace CHARLM_ISA
}  // namespace charlm
