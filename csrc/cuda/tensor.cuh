// Products on tensor cores: mma.sync.m16n8k16 of bfloat16 or half with sums in float, sm_80 and
// newer. Where an element of a 16 x 16, 16 x 8 operand or of the sums lies among the lanes is the
// PTX ISA's ("Matrix Fragments for mma.m16n8k16"): lane 4 g + t holds
//
//   of the weights, 4 words: rows g, g + 8, g, g + 8 at columns 2 t, 2 t, 2 t + 8, 2 t + 8 and next
//   of the inputs, 2 words:  row g of them at columns 2 t and 2 t + 8, and next
//   of the sums:             weights' row g with inputs' rows 2 t and 2 t + 1, then row g + 8
//
// A sum's terms may come in any order as long as both operands agree: 32 columns are two products,
// for which a lane takes 8 neighbours, 8 t to 8 t + 7, of a row: 16 bytes in one load, four words.
#pragma once

#include <string.h>

#include <type_traits>

#include "types.cuh"

namespace charlm {
namespace cuda {

constexpr int kOctet = 8;       // columns of a lane: 16 bytes
constexpr int kColumns = 32;    // of the two products that a lane's columns go into
constexpr int kTensorRows = 8;  // of inputs, a product's

struct alignas(16) Octet {
  unsigned word[4];
};

template <class T>
__device__ __forceinline__ unsigned bits_of(T x) {
  static_assert(sizeof(T) == 2, "what tensor cores take here");
  unsigned short bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

// 8 values that lie `pitch` apart, zero from the `count`th on.
template <class T>
__device__ __forceinline__ Octet gather(const T* from, i64 pitch, i64 count) {
  Octet found;
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    const unsigned low = 2 * w < count ? bits_of(from[2 * w * pitch]) : 0;
    const unsigned high = 2 * w + 1 < count ? bits_of(from[(2 * w + 1) * pitch]) : 0;
    found.word[w] = low | high << 16;
  }
  return found;
}

// sum += weights inputs, 16 rows of weights and 8 of inputs over 16 columns.
template <class T>
__device__ __forceinline__ void multiply_16(const unsigned (&w)[4], const unsigned (&x)[2],
                                            float (&sum)[4]) {
#if !defined(__CUDACC__)
  cuda_on_host::mma_m16n8k16<T>(w, x, sum);
#elif __CUDA_ARCH__ >= 800
  if constexpr (std::is_same<T, __half>::value)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]), "r"(x[0]), "r"(x[1]));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]), "r"(x[0]), "r"(x[1]));
#endif
}

// sum += weights inputs over 32 columns; `top` and `bottom`: rows g and g + 8 of the weights.
template <class T>
__device__ __forceinline__ void multiply(const Octet& top, const Octet& bottom, const Octet& x,
                                         float (&sum)[4]) {
#pragma unroll
  for (int half = 0; half < 4; half += 2) {
    const unsigned w[4] = {top.word[half], bottom.word[half], top.word[half + 1],
                           bottom.word[half + 1]};
    const unsigned inputs[2] = {x.word[half], x.word[half + 1]};
    multiply_16<T>(w, inputs, sum);
  }
}

// x, from which the compiler computes nothing ahead of its place: that would take registers for as
// long as the weights do.
__device__ __forceinline__ int in_place(int x) {
#if defined(__CUDACC__)
  asm volatile("" : "+r"(x));
#endif
  return x;
}

// The values of 8 lanes side by side, the first a multiple of 8: each of them gets all.
template <class T>
__device__ __forceinline__ Octet of_neighbours(T value, int lane) {
  constexpr unsigned kAll = 0xffffffffu;
  const unsigned own = bits_of(value);
  const unsigned pair = own | __shfl_xor_sync(kAll, own, 1) << 16;
  Octet all;
#pragma unroll
  for (int w = 0; w < 4; ++w) all.word[w] = __shfl_sync(kAll, pair, lane / kOctet * kOctet + 2 * w);
  return all;
}

}  // namespace cuda
}  // namespace charlm
