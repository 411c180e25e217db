// The instructions beyond AVX2 that csrc/cpu names by intrinsics, lane by lane in plain C++, for
// machines that lack them. They stand in for <immintrin.h>'s by macros; 64-byte vectors themselves
// any compiler divides into those that the machine has.
//
// Each is written from the operation that Intel's manual states for the instruction in its comment
// (Software Developer's Manual, volume 2), rounding to the nearest even. test_emulated.py compares
// them bit by bit with the instructions where a machine has them. A compiler that does not know an
// intrinsic here is told so by the name of the macro's function.
#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

namespace emulated {

constexpr int kLanes = 16;

template <class To, class From>
inline To bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "other sizes");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

template <class Lane>
struct Lanes {
  Lane lane[64 / sizeof(Lane)];
};

using Floats = Lanes<float>;
using Words = Lanes<int32_t>;

// Calls each(k) for the lanes of a mask; the others are zero.
template <class To, class Each>
inline To by_lane(unsigned mask, const Each& each) {
  using Lane = decltype(each(0));
  Lanes<Lane> out;
  for (int k = 0; k < kLanes; ++k) out.lane[k] = mask >> k & 1 ? each(k) : Lane{};
  return bits<To>(out);
}

// What a subnormal number counts for where the instruction does not look at MXCSR.
inline float flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? x * 0 : x; }

inline float widened(uint16_t half) { return flushed(bits<float>(uint32_t{half} << 16)); }

inline __m512 set1_ps(float x) {
  return by_lane<__m512>(0xffff, [&](int) { return x; });
}

inline __m512i set1_epi32(int x) {
  return by_lane<__m512i>(0xffff, [&](int) { return x; });
}

// VMINPS and VMAXPS: the second operand, unless the first is less or more.
inline __m512 maskz_min_ps(unsigned mask, __m512 a, __m512 b) {
  const Floats x = bits<Floats>(a), y = bits<Floats>(b);
  return by_lane<__m512>(mask,
                         [&](int k) { return x.lane[k] < y.lane[k] ? x.lane[k] : y.lane[k]; });
}

inline __m512 maskz_max_ps(unsigned mask, __m512 a, __m512 b) {
  const Floats x = bits<Floats>(a), y = bits<Floats>(b);
  return by_lane<__m512>(mask,
                         [&](int k) { return x.lane[k] > y.lane[k] ? x.lane[k] : y.lane[k]; });
}

inline __m512 min_ps(__m512 a, __m512 b) { return maskz_min_ps(0xffff, a, b); }

// VCVTPS2DQ: what 32 bits do not hold, and NaN, is the least integer.
inline __m512i maskz_cvtps_epi32(unsigned mask, __m512 a) {
  const Floats x = bits<Floats>(a);
  return by_lane<__m512i>(mask, [&](int k) {
    const float y = std::nearbyint(x.lane[k]);
    return y >= -2147483648.0f && y < 2147483648.0f ? static_cast<int32_t>(y) : INT32_MIN;
  });
}

// VPMOVDB: the lowest byte of each lane.
inline __m128i maskz_cvtepi32_epi8(unsigned mask, __m512i a) {
  const Words x = bits<Words>(a);
  struct {
    uint8_t byte[kLanes];
  } out;
  for (int k = 0; k < kLanes; ++k)
    out.byte[k] = mask >> k & 1 ? static_cast<uint8_t>(x.lane[k] & 0xff) : 0;
  return bits<__m128i>(out);
}

// VRNDSCALEPS with no places behind the point (imm8 bits 7:4), to the nearest (bits 3:0).
template <int imm8>
inline __m512 roundscale_ps(__m512 a) {
  static_assert(imm8 == 0, "only what the kernels use");
  const Floats x = bits<Floats>(a);
  return by_lane<__m512>(0xffff, [&](int k) { return std::nearbyint(x.lane[k]); });
}

// VSCALEFPS: a 2^floor(b). An infinite b makes 0 or infinity, also of a quiet NaN, and NaN of what
// has no limit.
inline __m512 scalef_ps(__m512 a, __m512 b) {
  const Floats x = bits<Floats>(a), y = bits<Floats>(b);
  return by_lane<__m512>(0xffff, [&](int k) {
    const float from = x.lane[k], n = std::floor(y.lane[k]);
    const bool quiet = from != from && (bits<uint32_t>(from) & 0x400000);
    if (quiet && std::isinf(n)) return n > 0 ? n : 0.0f;
    if (std::isinf(n) && (n > 0 ? from == 0 : std::isinf(from))) return NAN;
    if (n != n || from != from) return from + n;
    return std::ldexp(from, static_cast<int>(n < -1000 ? -1000 : n > 1000 ? 1000 : n));
  });
}

// VRCP14PS: 1 / a with an error below 2^-14 of it. Which of these is the CPU's own; here 13 bits
// behind the point, the worst that is allowed nearly.
inline __m512 rcp14_ps(__m512 a) {
  const Floats x = bits<Floats>(a);
  return by_lane<__m512>(0xffff, [&](int k) {
    const float y = 1 / x.lane[k];
    return std::isfinite(y) ? bits<float>((bits<uint32_t>(y) + 0x200) & ~uint32_t{0x3ff}) : y;
  });
}

// VPDPBUSD: sum + the four products of a lane's bytes, those of a without sign, those of b with;
// it does not saturate.
inline __m512i dpbusd_epi32(__m512i sum, __m512i a, __m512i b) {
  const auto x = bits<Lanes<uint8_t>>(a);
  const auto y = bits<Lanes<int8_t>>(b);
  const Words start = bits<Words>(sum);
  return by_lane<__m512i>(0xffff, [&](int k) {
    uint32_t total = static_cast<uint32_t>(start.lane[k]);
    for (int byte = 4 * k; byte < 4 * k + 4; ++byte)
      total += static_cast<uint32_t>(int32_t{x.lane[byte]} * int32_t{y.lane[byte]});
    return static_cast<int32_t>(total);
  });
}

// VDPBF16PS: the upper halves' product, then the lower ones', each by a fused multiply-add.
// Subnormal numbers are zeros on the way in and out.
inline __m512 dpbf16_ps(__m512 sum, __m512bh a, __m512bh b) {
  const auto x = bits<Lanes<uint16_t>>(a), y = bits<Lanes<uint16_t>>(b);
  const Floats start = bits<Floats>(sum);
  return by_lane<__m512>(0xffff, [&](int k) {
    float total = flushed(start.lane[k]);
    for (int half = 2 * k + 1; half >= 2 * k; --half)
      total = flushed(std::fma(widened(x.lane[half]), widened(y.lane[half]), total));
    return total;
  });
}

// VCVTNEPS2BF16: to the nearest even; subnormal numbers become zeros, NaNs quiet ones.
inline __m256bh cvtneps_pbh(__m512 a) {
  const Floats x = bits<Floats>(a);
  struct {
    uint16_t half[kLanes];
  } out;
  for (int k = 0; k < kLanes; ++k) {
    const uint32_t wide = bits<uint32_t>(flushed(x.lane[k]));
    const bool is_nan = x.lane[k] != x.lane[k];
    out.half[k] = static_cast<uint16_t>(is_nan ? wide >> 16 | 0x40
                                               : (wide + 0x7fff + (wide >> 16 & 1)) >> 16);
  }
  return bits<__m256bh>(out);
}

}  // namespace emulated

#if defined(CHARLM_EMULATED)
#undef _mm512_roundscale_ps  // a macro of GCC's without optimisation
#define _mm512_set1_ps emulated::set1_ps
#define _mm512_set1_epi32 emulated::set1_epi32
#define _mm512_min_ps emulated::min_ps
#define _mm512_maskz_min_ps emulated::maskz_min_ps
#define _mm512_maskz_max_ps emulated::maskz_max_ps
#define _mm512_maskz_cvtps_epi32 emulated::maskz_cvtps_epi32
#define _mm512_maskz_cvtepi32_epi8 emulated::maskz_cvtepi32_epi8
#define _mm512_roundscale_ps(a, imm8) emulated::roundscale_ps<imm8>(a)
#define _mm512_scalef_ps emulated::scalef_ps
#define _mm512_rcp14_ps emulated::rcp14_ps
#define _mm512_dpbusd_epi32 emulated::dpbusd_epi32
#define _mm512_dpbf16_ps emulated::dpbf16_ps
#define _mm512_cvtneps_pbh emulated::cvtneps_pbh
#endif
