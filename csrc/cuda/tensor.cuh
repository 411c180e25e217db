// Products on tensor cores: mma.sync of bfloat16 and half (m16n8k16), and of float as TF32
// (m16n8k8), with sums in float, sm_80 and newer. Where an element of the 16 rows of weights, the 8
// rows of inputs or the sums lies among the lanes is the PTX ISA's ("Matrix Fragments for
// mma.m16n8k16", "mma.m16n8k8"): lane 4 g + t holds
//
//   of the weights, 4 words: rows g, g + 8, g, g + 8 at columns 2 t, 2 t, 2 t + 8, 2 t + 8 and next
//   of the inputs, 2 words:  row g of them at columns 2 t and 2 t + 8, and next
//   of the sums:             weights' row g with inputs' rows 2 t and 2 t + 1, then row g + 8
//
// and in TF32 one value a word, at columns t and t + 4 in place of 2 t and 2 t + 8. A sum's terms
// may come in any order as long as both operands agree: 32 columns, or 16 in TF32, are two
// products, for which a lane takes 16 neighbouring bytes of a row in one load, four words.
//
// float is rounded to TF32, to nearest, where it becomes an operand: once for weights, and for h
// and dgates as they are handed on to the products, which alone read them. All else stays float.
#pragma once

#include <string.h>

#include <type_traits>

#include "types.cuh"

namespace charlm {
namespace cuda {

constexpr int kOctet = 8;       // units whose weights a warp multiplies
constexpr int kTensorRows = 8;  // of inputs, a product's
template <class T>
constexpr int kLane = 16 / static_cast<int>(sizeof(T));  // columns of a lane: 16 bytes
template <class T>
constexpr int kColumns = 4 * kLane<T>;  // of the two products that a lane's columns go into

struct alignas(16) Words {
  unsigned word[4];
};

// x as tensor cores take it: of float, the nearest TF32.
template <class T>
__device__ __forceinline__ T operand(T x) {
#if !defined(__CUDACC__)
  if constexpr (std::is_same<T, float>::value) return cuda_on_host::to_tf32(x);
#elif __CUDA_ARCH__ >= 800
  if constexpr (std::is_same<T, float>::value) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return __uint_as_float(bits);
  }
#endif
  return x;
}

template <class T>
__device__ __forceinline__ unsigned bits_of(T x) {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4, "what tensor cores take here");
  std::conditional_t<sizeof(T) == 2, unsigned short, unsigned> bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

// A lane's values, which lie `pitch` apart, as operands; zero from the `count`th on.
template <class T>
__device__ __forceinline__ Words gather(const T* from, i64 pitch, i64 count) {
  Words found;
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    if constexpr (sizeof(T) == 4) {
      found.word[w] = w < count ? bits_of(operand(from[w * pitch])) : 0;
    } else {
      const unsigned low = 2 * w < count ? bits_of(from[2 * w * pitch]) : 0;
      const unsigned high = 2 * w + 1 < count ? bits_of(from[(2 * w + 1) * pitch]) : 0;
      found.word[w] = low | high << 16;
    }
  }
  return found;
}

// sum += weights inputs, 16 rows of weights and 8 of inputs over half of kColumns.
template <class T>
__device__ __forceinline__ void multiply_once(const unsigned (&w)[4], const unsigned (&x)[2],
                                              float (&sum)[4]) {
#if !defined(__CUDACC__)
  cuda_on_host::mma<T>(w, x, sum);
#elif __CUDA_ARCH__ >= 800
  if constexpr (std::is_same<T, float>::value)
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]), "r"(x[0]), "r"(x[1]));
  else if constexpr (std::is_same<T, __half>::value)
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

// sum += weights inputs over kColumns; `top` and `bottom`: rows g and g + 8 of the weights.
template <class T>
__device__ __forceinline__ void multiply(const Words& top, const Words& bottom, const Words& x,
                                         float (&sum)[4]) {
#pragma unroll
  for (int half = 0; half < 4; half += 2) {
    const unsigned w[4] = {top.word[half], bottom.word[half], top.word[half + 1],
                           bottom.word[half + 1]};
    const unsigned inputs[2] = {x.word[half], x.word[half + 1]};
    multiply_once<T>(w, inputs, sum);
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

// The values of kLane lanes side by side, the first a multiple of it: each of them gets all.
template <class T>
__device__ __forceinline__ Words of_neighbours(T value, int lane) {
  constexpr unsigned kAll = 0xffffffffu;
  constexpr int kApart = kLane<T> / 4;  // lanes of a word
  unsigned own = bits_of(value);
  if constexpr (kApart == 2) own |= __shfl_xor_sync(kAll, own, 1) << 16;
  Words all;
#pragma unroll
  for (int w = 0; w < 4; ++w)
    all.word[w] = __shfl_sync(kAll, own, lane / kLane<T> * kLane<T> + kApart * w);
  return all;
}

}  // namespace cuda
}  // namespace charlm
