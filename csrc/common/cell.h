// The LSTM cell of one unit, forward and backward, for host and device.
//
//   c' = f c + i g;  h = o tanh(c')
//
// C is the compute type, float or double; storage types convert outside. sigmoid and tanh come
// from exp and expm1, the formulas of the CPU kernels, so that backends agree to rounding.
#pragma once

#include <math.h>

#if defined(__CUDACC__)
#define CHARLM_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define CHARLM_HOST_DEVICE inline
#endif

namespace charlm {
namespace cell {

CHARLM_HOST_DEVICE float exponential(float x) { return expf(x); }
CHARLM_HOST_DEVICE double exponential(double x) { return exp(x); }
CHARLM_HOST_DEVICE float exponential_minus_1(float x) { return expm1f(x); }
CHARLM_HOST_DEVICE double exponential_minus_1(double x) { return expm1(x); }

// Infinity under the bar divides to 0: no clamp needed.
template <class C>
CHARLM_HOST_DEVICE C sigmoid(C x) {
  return C(1) / (C(1) + exponential(-x));
}

// Keeps full relative precision near zero. From 20 on tanh is 1 to double's last bit but one,
// and the clamp keeps infinity / infinity away; comparisons let NaN through.
template <class C>
CHARLM_HOST_DEVICE C hyperbolic_tangent(C x) {
  x = x > C(20) ? C(20) : x;
  x = x < C(-20) ? C(-20) : x;
  const C e = exponential_minus_1(C(2) * x);
  return e / (e + C(2));
}

// Activated gates, or gradients of the gates before activation.
template <class C>
struct Gates {
  C i, f, g, o;
};

template <class C>
CHARLM_HOST_DEVICE Gates<C> activate(const Gates<C>& sums) {
  return {sigmoid(sums.i), sigmoid(sums.f), hyperbolic_tangent(sums.g), sigmoid(sums.o)};
}

// c becomes the next cell state; returns h.
template <class C>
CHARLM_HOST_DEVICE C forward(const Gates<C>& gates, C& c) {
  c = gates.f * c + gates.i * gates.g;
  return gates.o * hyperbolic_tangent(c);
}

// dh is the whole gradient that reaches h, `before` the cell state the step began with. dc
// becomes the gradient of `before`.
template <class C>
CHARLM_HOST_DEVICE Gates<C> backward(const Gates<C>& gates, C c, C before, C dh, C& dc) {
  const C squashed = hyperbolic_tangent(c);
  const C d = dc + dh * gates.o * (C(1) - squashed * squashed);
  dc = d * gates.f;
  return {d * gates.g * gates.i * (C(1) - gates.i), d * before * gates.f * (C(1) - gates.f),
          d * gates.i * (C(1) - gates.g * gates.g), dh * squashed * gates.o * (C(1) - gates.o)};
}

}  // namespace cell
}  // namespace charlm
