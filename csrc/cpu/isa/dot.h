// Sums of products of 8-bit integers in 32 bits, four products a lane: what each instruction set
// has for them. All are exact, so that every order and every set gives the same bits.
//
// A word is four values of a row of activations; a vector of weights holds the words of as many
// columns as there are lanes. Words come in pairs, and |a| of the values 0 1 4 5 of a pair, and of
// 2 3 6 7, sums to at most 128: see quantize_rows. Weights are in [-127, 127], or where an
// instruction takes one side without sign kWeightOffset higher.
#pragma once

#include "cpu/isa/vec.h"

namespace charlm {
namespace CHARLM_ISA {

using Int = Lanes<float>::I;
constexpr int kWord = 4;

typedef signed char Bytes __attribute__((vector_size(CHARLM_VECTOR_BYTES)));

CHARLM_INLINE Bytes load_bytes(const signed char* p) {
  Bytes v;
  __builtin_memcpy(&v, p, sizeof(v));
#if defined(CHARLM_VNNI)
  CHARLM_KEEP(v);  // else GCC loads it for each row
#endif
  return v;
}

CHARLM_INLINE int load_bits(const signed char* p) {
  int bits;
  __builtin_memcpy(&bits, p, sizeof(bits));
  return bits;
}

// In each section below: kDotRows rows by kDotVectors vectors of sums fill the registers, and so do
// kDotBeside times those vectors for one row; nearest rounds to integers, to even between two;
// store_narrow writes those that 8 bits hold; within holds v in [-limit, limit] and lets NaN pass.
#if defined(CHARLM_VNNI)

constexpr int kWeightOffset = 128;
// Six rows would take 24 sums and 12 words, of 32 registers; with five the multipliers bind.
constexpr int kDotRows = 5, kDotVectors = 4, kDotBeside = 2;

struct Word {
  __m512i values;
};
struct Sum {
  __m512i lanes;
};

CHARLM_INLINE Word load_word(const signed char* p) { return {_mm512_set1_epi32(load_bits(p))}; }
CHARLM_INLINE void add_products(Sum& sum, const Word (&a)[2], Bytes w0, Bytes w1) {
  sum.lanes = _mm512_dpbusd_epi32(sum.lanes, (__m512i)w0, a[0].values);
  sum.lanes = _mm512_dpbusd_epi32(sum.lanes, (__m512i)w1, a[1].values);
  CHARLM_KEEP(sum.lanes);  // where it is, else GCC copies it to and fro
}
CHARLM_INLINE Int total(const Sum& sum) { return (Int)sum.lanes; }
CHARLM_INLINE Int nearest(Vec<float> v) { return (Int)_mm512_maskz_cvtps_epi32(0xffff, (__m512)v); }
CHARLM_INLINE void store_narrow(signed char* p, Int q) {
  _mm_storeu_si128((__m128i*)p, _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)q));
}
CHARLM_INLINE Vec<float> within(Vec<float> v, float limit) {
  const __m512 most = _mm512_set1_ps(limit), least = _mm512_set1_ps(-limit);
  const __m512 below = _mm512_maskz_min_ps(0xffff, most, (__m512)v);
  return (Vec<float>)_mm512_maskz_max_ps(0xffff, least, below);
}

#elif CHARLM_VECTOR_BYTES == 32

// vpmaddubsw sums pairs of products in 16 bits and saturates there. Two such sums take at most
// 255 * 128 = 32640 together, so that they can be added in 16 bits, and one vpmaddwd widens both:
// three multiplications for 64 products, which is what bounds a cycle.
constexpr int kWeightOffset = 128;
constexpr int kDotRows = 3, kDotVectors = 2, kDotBeside = 4;

struct Word {
  __m256i values;
};
struct Sum {
  __m256i lanes;
};

CHARLM_INLINE Word load_word(const signed char* p) { return {_mm256_set1_epi32(load_bits(p))}; }
CHARLM_INLINE void add_products(Sum& sum, const Word (&a)[2], Bytes w0, Bytes w1) {
  const __m256i first = _mm256_maddubs_epi16((__m256i)w0, a[0].values);
  const __m256i both = _mm256_add_epi16(first, _mm256_maddubs_epi16((__m256i)w1, a[1].values));
  sum.lanes = _mm256_add_epi32(sum.lanes, _mm256_madd_epi16(both, _mm256_set1_epi16(1)));
  CHARLM_KEEP(sum.lanes);  // where it is, else GCC copies it to and fro
}
CHARLM_INLINE Int total(const Sum& sum) { return (Int)sum.lanes; }
CHARLM_INLINE Int nearest(Vec<float> v) { return (Int)_mm256_cvtps_epi32((__m256)v); }
CHARLM_INLINE void store_narrow(signed char* p, Int q) {
  const __m256i v = (__m256i)q;
  const __m128i pairs = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  _mm_storel_epi64((__m128i*)p, _mm_packs_epi16(pairs, pairs));
}
CHARLM_INLINE Vec<float> within(Vec<float> v, float limit) {
  const __m256 most = _mm256_set1_ps(limit), least = _mm256_set1_ps(-limit);
  return (Vec<float>)_mm256_max_ps(least, _mm256_min_ps(most, (__m256)v));
}

#elif defined(CHARLM_DOTPROD)

constexpr int kWeightOffset = 0;
constexpr int kDotRows = 4, kDotVectors = 4, kDotBeside = 2;

struct Word {
  int8x16_t values;
};
struct Sum {
  int32x4_t lanes = vdupq_n_s32(0);
};

CHARLM_INLINE Word load_word(const signed char* p) {
  return {vreinterpretq_s8_s32(vdupq_n_s32(load_bits(p)))};
}
CHARLM_INLINE void add_products(Sum& sum, const Word (&a)[2], Bytes w0, Bytes w1) {
  // Not by the intrinsic: older clang has it for whole files only.
  __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(sum.lanes) : "w"(w0), "w"(a[0].values));
  __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(sum.lanes) : "w"(w1), "w"(a[1].values));
}
CHARLM_INLINE Int total(const Sum& sum) { return (Int)sum.lanes; }

#elif defined(CHARLM_NEON)

// Pairs of words' products fit 16 bits, 127 * 128; pairs of these are added up in 32, a lane's two
// apart.
constexpr int kWeightOffset = 0;
constexpr int kDotRows = 2, kDotVectors = 4, kDotBeside = 1;

struct Word {
  int8x8_t values;
};
struct Sum {
  int32x4_t low = vdupq_n_s32(0), high = vdupq_n_s32(0);
};

CHARLM_INLINE Word load_word(const signed char* p) {
  return {vreinterpret_s8_s32(vdup_n_s32(load_bits(p)))};
}
CHARLM_INLINE void add_products(Sum& sum, const Word (&a)[2], Bytes w0, Bytes w1) {
  const int8x16_t first = (int8x16_t)w0, second = (int8x16_t)w1;
  const int16x8_t low = vmull_s8(vget_low_s8(first), a[0].values);
  const int16x8_t high = vmull_s8(vget_high_s8(first), a[0].values);
  sum.low = vpadalq_s16(sum.low, vmlal_s8(low, vget_low_s8(second), a[1].values));
  sum.high = vpadalq_s16(sum.high, vmlal_s8(high, vget_high_s8(second), a[1].values));
}
CHARLM_INLINE Int total(const Sum& sum) { return (Int)vpaddq_s32(sum.low, sum.high); }

#elif defined(__SSE2__)

// Bytes widened to 16 bits, whose pairs pmaddwd sums in 32: a lane's two pairs side by side.
constexpr int kWeightOffset = 0;
constexpr int kDotRows = 2, kDotVectors = 2, kDotBeside = 2;

CHARLM_INLINE __m128i wide_low(__m128i v) { return _mm_srai_epi16(_mm_unpacklo_epi8(v, v), 8); }
CHARLM_INLINE __m128i wide_high(__m128i v) { return _mm_srai_epi16(_mm_unpackhi_epi8(v, v), 8); }

struct Word {
  __m128i values;  // in 16 bits, twice
};
struct Sum {
  __m128i low, high;
};

CHARLM_INLINE Word load_word(const signed char* p) {
  return {wide_low(_mm_set1_epi32(load_bits(p)))};
}
CHARLM_INLINE void add_products(Sum& sum, const Word (&a)[2], Bytes w0, Bytes w1) {
  const __m128i weights[2] = {(__m128i)w0, (__m128i)w1};
#pragma GCC unroll 2
  for (int k = 0; k < 2; ++k) {
    sum.low = _mm_add_epi32(sum.low, _mm_madd_epi16(wide_low(weights[k]), a[k].values));
    sum.high = _mm_add_epi32(sum.high, _mm_madd_epi16(wide_high(weights[k]), a[k].values));
  }
}
CHARLM_INLINE Int total(const Sum& sum) {
  const __m128 low = _mm_castsi128_ps(sum.low), high = _mm_castsi128_ps(sum.high);
  return (Int)_mm_add_epi32(_mm_castps_si128(_mm_shuffle_ps(low, high, _MM_SHUFFLE(2, 0, 2, 0))),
                            _mm_castps_si128(_mm_shuffle_ps(low, high, _MM_SHUFFLE(3, 1, 3, 1))));
}
CHARLM_INLINE Int nearest(Vec<float> v) { return (Int)_mm_cvtps_epi32((__m128)v); }
CHARLM_INLINE void store_narrow(signed char* p, Int q) {
  const __m128i pairs = _mm_packs_epi32((__m128i)q, (__m128i)q);
  const int bytes = _mm_cvtsi128_si32(_mm_packs_epi16(pairs, pairs));
  __builtin_memcpy(p, &bytes, sizeof(bytes));
}
CHARLM_INLINE Vec<float> within(Vec<float> v, float limit) {
  return (Vec<float>)_mm_max_ps(_mm_set1_ps(-limit), _mm_min_ps(_mm_set1_ps(limit), (__m128)v));
}

#else

// For machines of no instruction set that is named here.
constexpr int kWeightOffset = 0;
constexpr int kDotRows = 1, kDotVectors = 4, kDotBeside = 1;

struct Word {
  int values[kWord];
};
struct Sum {
  Int lanes;
};

CHARLM_INLINE Word load_word(const signed char* p) { return {{p[0], p[1], p[2], p[3]}}; }
CHARLM_INLINE void add_products(Sum& sum, const Word (&a)[2], Bytes w0, Bytes w1) {
  for (int lane = 0; lane < kLanes<float>; ++lane)
    for (int k = 0; k < kWord; ++k)
      sum.lanes[lane] +=
          a[0].values[k] * w0[lane * kWord + k] + a[1].values[k] * w1[lane * kWord + k];
}
CHARLM_INLINE Int total(const Sum& sum) { return sum.lanes; }
// For what is far below 2^22.
CHARLM_INLINE Int nearest(Vec<float> v) {
  volatile float rounder = 12582912.0f;
  Int out;
  for (int lane = 0; lane < kLanes<float>; ++lane)
    out[lane] = static_cast<int>((v[lane] + rounder) - rounder);
  return out;
}

CHARLM_INLINE void store_narrow(signed char* p, Int q) {
  for (int lane = 0; lane < kLanes<float>; ++lane) p[lane] = static_cast<signed char>(q[lane]);
}
CHARLM_INLINE Vec<float> within(Vec<float> v, float limit) {
  v = v > limit ? splat(limit) : v;
  return v < -limit ? splat(-limit) : v;
}

#endif

#if defined(CHARLM_NEON)  // with and without dot products

CHARLM_INLINE Int nearest(Vec<float> v) { return (Int)vcvtnq_s32_f32((float32x4_t)v); }
CHARLM_INLINE void store_narrow(signed char* p, Int q) {
  const int16x4_t pairs = vqmovn_s32((int32x4_t)q);
  const int8x8_t bytes = vqmovn_s16(vcombine_s16(pairs, pairs));
  __builtin_memcpy(p, &bytes, kWord);
}
CHARLM_INLINE Vec<float> within(Vec<float> v, float limit) {
  const float32x4_t most = vdupq_n_f32(limit), least = vdupq_n_f32(-limit);
  return (Vec<float>)vmaxq_f32(least, vminq_f32(most, (float32x4_t)v));
}

#endif

}  // namespace CHARLM_ISA
}  // namespace charlm
