// What the persistent kernels share: a group of blocks, its exchange and barrier, weights in
// shared memory, and sums over the lanes of a team.
#pragma once

#include <cooperative_groups.h>

#include "plan.h"
#include "types.cuh"

namespace charlm {
namespace cuda {

constexpr int kSequenceThreads = 512;
constexpr int kTeam = 8;

// The part of a plan that a kernel reads.
struct Group {
  int size, units, tile, stride;
};

#if defined(__CUDACC__)
__device__ __forceinline__ char* dynamic_shared() {
  extern __shared__ __align__(16) char memory[];
  return memory;
}
#else
inline char* dynamic_shared() { return cuda_on_host::dynamic_shared(); }
#endif

// kCluster: the blocks of a group are a cluster. Otherwise they are part of a cooperative grid.
template <bool kCluster>
__device__ __forceinline__ void group_sync() {
  if constexpr (kCluster) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
    cooperative_groups::this_cluster().sync();
#endif
  } else {
    cooperative_groups::this_grid().sync();
  }
}

// Where `own`, in this block's shared memory, lies in that of block `rank` of the cluster.
__device__ __forceinline__ float* in_block(float* own, int rank) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  return cooperative_groups::this_cluster().map_shared_rank(own, static_cast<unsigned>(rank));
#else
  return rank ? nullptr : own;  // no launch gets here
#endif
}

// Rows q units + u of shared memory get rows q H + first + u of W_hh (4H, H), zero outside.
template <class T>
__device__ __forceinline__ void load_weights(const T* weights, i64 H, i64 first, const Group& g,
                                             T* shared) {
  const int rows = 4 * g.units;
  for (int j = threadIdx.y; j < rows; j += blockDim.y) {
    const int q = j / g.units;
    const i64 unit = first + j % g.units;
    const T* from = weights + (q * H + unit) * H;
    for (int k = threadIdx.x; k < g.stride; k += blockDim.x)
      shared[j * g.stride + k] = unit < H && k < H ? from[k] : to_storage<T>(0.0f);
  }
}

// Adds over the kTeam lanes of a team, each the 4 values of kRows rows. With 8 rows lane s is
// left with those of row s, with one row every lane has them. The order is fixed.
template <int kRows>
__device__ __forceinline__ void team_sum(float (&sum)[4][kRows], int lane) {
  constexpr unsigned kAll = 0xffffffffu;
  static_assert(kRows == 1 || kRows == kTeam, "a row a lane, or one row");
#pragma unroll
  for (int step = kTeam / 2; step; step /= 2) {
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      if constexpr (kRows == 1) {
        sum[q][0] += __shfl_xor_sync(kAll, sum[q][0], step);
      } else {
#pragma unroll
        for (int r = 0; r < step; ++r) {
          const bool upper = lane & step;
          const float sent = upper ? sum[q][r] : sum[q][r + step];
          const float kept = upper ? sum[q][r + step] : sum[q][r];
          sum[q][r] = kept + __shfl_xor_sync(kAll, sent, step);
        }
      }
    }
  }
}

template <class Kernel, class Args>
int launch_group(Kernel* kernel, const SequencePlan& plan, const Args& args, void* stream) {
  const Group group = {plan.group, plan.units, plan.tile, plan.stride};
  const bool cluster = plan.kernel == SequenceKernel::kCluster;
  int code = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(plan.shared_memory));
  if (code == cudaSuccess && cluster && plan.group > 8)
    code = cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
  if (code != cudaSuccess) return code;
  cudaLaunchAttribute attribute = {};
  if (cluster) {
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = static_cast<unsigned>(plan.group);
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  } else {
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(plan.group * plan.groups));
  config.blockDim = dim3(32, static_cast<unsigned>(plan.threads / 32));
  config.dynamicSmemBytes = static_cast<size_t>(plan.shared_memory);
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, args, group);
}

// f(Type<T>, rows, cluster) with the template arguments of a plan.
template <class F>
int dispatch_sequence(DType dtype, const SequencePlan& plan, const F& f) {
  return dispatch(dtype, [&](auto type) -> int {
    using T = typename decltype(type)::type;
    if constexpr (sizeof(T) == 8) {
      return cudaErrorInvalidValue;
    } else {
      const bool cluster = plan.kernel == SequenceKernel::kCluster;
      using std::integral_constant;
      if (plan.rows == 1)
        return cluster ? f(type, integral_constant<int, 1>(), std::true_type())
                       : f(type, integral_constant<int, 1>(), std::false_type());
      return cluster ? f(type, integral_constant<int, kTeam>(), std::true_type())
                     : f(type, integral_constant<int, kTeam>(), std::false_type());
    }
  });
}

}  // namespace cuda
}  // namespace charlm
