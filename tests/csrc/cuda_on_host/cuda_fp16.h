// Half storage for kernels that run on the host: conversions to and from float only.
#pragma once

#include <math.h>
#include <stdint.h>

struct __half {
  uint16_t bits;

  __half() = default;
  explicit __half(float x) {
    const uint16_t sign = signbit(x) ? 0x8000 : 0;
    const float a = fabsf(x);
    if (a != a) {
      bits = 0x7e00;
    } else if (a >= 65520.0f) {
      bits = sign | 0x7c00;
    } else if (a < 0x1p-14f) {  // subnormal: multiples of 2^-24
      bits = sign | static_cast<uint16_t>(nearbyintf(a * 0x1p24f));
    } else {
      int exponent;
      const float mantissa = frexpf(a, &exponent);  // [0.5, 1); a carry runs into the exponent
      bits = sign | static_cast<uint16_t>(((exponent + 13) << 10) +
                                          static_cast<int>(nearbyintf(mantissa * 2048.0f)));
    }
  }
  explicit operator float() const {
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    float a = exponent ? ldexpf(static_cast<float>(mantissa + 1024), exponent - 25)
                       : ldexpf(static_cast<float>(mantissa), -24);
    if (exponent == 31) a = mantissa ? NAN : INFINITY;
    return bits & 0x8000 ? -a : a;
  }
};
