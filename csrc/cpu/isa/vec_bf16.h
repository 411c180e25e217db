// bfloat16 in memory, float32 in registers: AVX512_BF16.
//
// A bfloat16 widens exactly. Narrowing rounds to the nearest, to even between two, and makes a
// subnormal number zero. multiply_add is vdpbf16ps: exact products of bfloat16 pairs, whose sums
// round to the nearest even whatever the rounding mode; subnormal numbers are taken for zero, going
// in and coming out. Intrinsics are inlined always, so that the linker has no copy of them to keep.
#pragma once

namespace charlm {
namespace CHARLM_ISA {

typedef unsigned short Halves
    __attribute__((vector_size(CHARLM_VECTOR_BYTES / 2), aligned(2), may_alias));
typedef unsigned Widened __attribute__((vector_size(CHARLM_VECTOR_BYTES)));

CHARLM_INLINE Vec<float> load(const bf16* p) {
  const Halves halves = *reinterpret_cast<const Halves*>(p);
  return reinterpret_cast<Vec<float>>(__builtin_convertvector(halves, Widened) << 16);
}

CHARLM_INLINE void store(bf16* p, Vec<float> v) {
  *reinterpret_cast<Halves*>(p) = (Halves)_mm512_cvtneps_pbh((__m512)v);
}

// A word is a pair of values along K, at any even address.
typedef float Words __attribute__((vector_size(CHARLM_VECTOR_BYTES), aligned(2), may_alias));

template <>
constexpr int kDepth<bf16> = 2;

CHARLM_INLINE Vec<float> load_words(const bf16* p) { return *reinterpret_cast<const Words*>(p); }

CHARLM_INLINE void store_words(bf16* p, Vec<float> v) { *reinterpret_cast<Words*>(p) = v; }

CHARLM_INLINE Vec<float> splat_word(const bf16* p) {
  float pair;
  __builtin_memcpy(&pair, p, sizeof(pair));
  return (Vec<float>)_mm512_set1_ps(pair);
}

// As splat_word of a row's last value and zero.
CHARLM_INLINE Vec<float> splat_last(const bf16* p) {
  return reinterpret_cast<Vec<float>>(Widened{} + p->bits);
}

CHARLM_INLINE Vec<float> multiply_add(const bf16*, Vec<float> sum, Vec<float> a, Vec<float> b) {
  return (Vec<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}

}  // namespace CHARLM_ISA
}  // namespace charlm
