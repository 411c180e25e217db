// Blocks that run at the same time and wait for each other: clusters and cooperative grids.
#pragma once

#include <cooperative_groups.h>

#include <utility>

#include "types.cuh"

namespace charlm {
namespace cuda {

__device__ __forceinline__ void cluster_sync() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  cooperative_groups::this_cluster().sync();
#endif
}

__device__ __forceinline__ void grid_sync() { cooperative_groups::this_grid().sync(); }

__device__ __forceinline__ auto grid_arrive() {
  return cooperative_groups::this_grid().barrier_arrive();
}

template <class Token>
__device__ __forceinline__ void grid_wait(Token token) {
  cooperative_groups::this_grid().barrier_wait(std::move(token));
}

struct Together {
  int cluster;  // blocks, 1: no clusters
  bool grid;    // all blocks wait for each other
};

// The blocks of a grid that waits for itself must all be resident, or it would never end.
template <class Kernel>
cudaError_t check_resident(Kernel* kernel, i64 blocks, int threads, i64 bytes) {
  int device = 0, processors = 0, each = 0;
  cudaError_t code = cudaGetDevice(&device);
  if (code == cudaSuccess)
    code = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (code == cudaSuccess)
    code = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, threads,
                                                         static_cast<size_t>(bytes));
  if (code == cudaSuccess && blocks > static_cast<i64>(each) * processors)
    code = cudaErrorCooperativeLaunchTooLarge;
  return code;
}

// Starts `blocks` blocks of 32 x (threads / 32) threads; 0 or the error.
template <class... Parameters, class... Arguments>
int launch_together(void (*kernel)(Parameters...), const Together& together, i64 blocks,
                    int threads, i64 bytes, void* stream, const Arguments&... arguments) {
  int device = 0, most = 0;
  cudaError_t code = cudaGetDevice(&device);
  if (code == cudaSuccess)
    code = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  // The device's limit, not `bytes`: another thread may launch this kernel with other sizes.
  if (code == cudaSuccess)
    code = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
  if (code == cudaSuccess && together.cluster > 8)
    code = cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
  if (code == cudaSuccess && together.grid) code = check_resident(kernel, blocks, threads, bytes);
  if (code != cudaSuccess) return code;
  cudaLaunchAttribute attribute = {};
  if (together.grid) {
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
  } else {
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = static_cast<unsigned>(together.cluster);
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(32, static_cast<unsigned>(threads / 32));
  config.dynamicSmemBytes = static_cast<size_t>(bytes);
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &attribute;
  config.numAttrs = together.grid || together.cluster > 1;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

}  // namespace cuda
}  // namespace charlm
