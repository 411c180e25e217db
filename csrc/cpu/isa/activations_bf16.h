// sigmoid and tanh on the way to bfloat16, to 3e-6: a thousandth of what rounding will cost.
//
// As in activations.h, but by powers of two, 2^y = 2^n 2^r with |r| <= 1/2: shorter chains, whose
// latency is what a cell waits for.
#pragma once

namespace charlm {
namespace CHARLM_ISA {

// Sets `scale` = 2^n and returns 2^r - 1, so that 2^y = scale + scale * (2^r - 1). y below the
// normal range gives zero.
CHARLM_INLINE Vec<float> power_parts(Vec<float> y, Vec<float>& scale) {
  const Vec<float> n = (Vec<float>)_mm512_roundscale_ps((__m512)y, 0);  // to the nearest
  const Vec<float> r = y - n;
  scale = (Vec<float>)_mm512_scalef_ps((__m512)splat(1.0f), (__m512)n);
  Vec<float> q = splat(0.00133335581f);  // ln(2)^k / k!, from k = 5 to 1
  q = q * r + 0.00961812911f;
  q = q * r + 0.0555041087f;
  q = q * r + 0.240226507f;
  q = q * r + 0.693147181f;
  return q * r;
}

// At most `limit`; NaN stays, as the second operand does.
CHARLM_INLINE Vec<float> at_most(Vec<float> x, float limit) {
  return (Vec<float>)_mm512_min_ps((__m512)splat(limit), (__m512)x);
}

// An estimate of 14 bits and one step of Newton's.
CHARLM_INLINE Vec<float> reciprocal(Vec<float> x) {
  const Vec<float> y = (Vec<float>)_mm512_rcp14_ps((__m512)x);
  return y * (2.0f - x * y);
}

template <>
CHARLM_INLINE Vec<float> sigmoid<bf16>(Vec<float> x) {
  Vec<float> scale;
  const Vec<float> p = power_parts(at_most(x * -1.44269504f, 125.0f), scale);
  return reciprocal(p * scale + (scale + 1.0f));
}

template <>
CHARLM_INLINE Vec<float> tanh<bf16>(Vec<float> x) {
  Vec<float> scale;
  const Vec<float> p = power_parts(at_most(x * 2.88539008f, 60.0f), scale);
  const Vec<float> e = p * scale + (scale - 1.0f);
  return e * reciprocal(e + 2.0f);
}

}  // namespace CHARLM_ISA
}  // namespace charlm
