// bfloat16 one by one, for drivers; kernels have vec_bf16.h.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/isa/storage.h"

namespace charlm {

inline float widen(bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float out;
  std::memcpy(&out, &bits, sizeof(out));
  return out;
}
inline float widen(float x) { return x; }
inline double widen(double x) { return x; }

// To the nearest, to even between two.
template <class S>
S narrow(Compute<S> x) {
  return x;
}
template <>
inline bf16 narrow<bf16>(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  if (x != x) return {static_cast<unsigned short>(bits >> 16 | 0x40)};
  return {static_cast<unsigned short>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

}  // namespace charlm
