// Reductions over the lanes of a warp and the warps of a block, in an order fixed by the sizes.
#pragma once

#include "types.cuh"

namespace charlm {
namespace cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

struct Max {
  template <class C>
  __device__ __forceinline__ C operator()(C a, C b) const {
    return b > a || b != b ? b : a;  // NaN wins, as in torch
  }
};

struct Least {
  template <class C>
  __device__ __forceinline__ C operator()(C a, C b) const {
    return b < a ? b : a;
  }
};

struct Plus {
  template <class C>
  __device__ __forceinline__ C operator()(C a, C b) const {
    return a + b;
  }
};

template <class Op, class C>
__device__ __forceinline__ C reduce_warp(C x, const Op& op) {
#pragma unroll
  for (int step = kWarp / 2; step; step /= 2) x = op(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}

// Over the kWarps warps of a block, or of one warp of several; every thread gets the result.
// `shared` holds kWarps values and is free again after the next barrier.
template <int kWarps, class Op, class C>
__device__ __forceinline__ C reduce_block(C x, C* shared, const Op& op) {
  x = reduce_warp(x, op);
  if (kWarps == 1) return x;
  __syncthreads();
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = x;
  __syncthreads();
  x = shared[0];
#pragma unroll
  for (int w = 1; w < kWarps; ++w) x = op(x, shared[w]);
  return x;
}

}  // namespace cuda
}  // namespace charlm
