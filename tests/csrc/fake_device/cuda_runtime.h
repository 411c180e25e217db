// A CUDA runtime that only answers questions about a device, as the test wants it to.
#pragma once

#include <cstddef>

#define __global__

using cudaError_t = int;
using cudaStream_t = void*;
constexpr int cudaSuccess = 0;

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    struct {
      unsigned x, y, z;
    } clusterDim;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize,
  cudaFuncAttributeNonPortableClusterSizeAllowed
};
enum cudaDeviceAttr {
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor,
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrClusterLaunch,
  cudaDevAttrCooperativeLaunch
};

// What the device answers.
inline int answers[] = {9, 0, 132, 232448, 1, 1};
inline int fails_from = 1 << 20;  // clusters of so many blocks and more: an error
inline bool error_pending = false;

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int) {
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) { return *device = 0; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = answers[attribute];
  return cudaSuccess;
}
inline cudaError_t cudaGetLastError() {
  error_pending = false;
  return cudaSuccess;
}

// Half of the parts of the chip have 16 multiprocessors, the others 17.
template <class Kernel>
cudaError_t cudaOccupancyMaxActiveClusters(int* clusters, Kernel*,
                                           const cudaLaunchConfig_t* config) {
  const int size = static_cast<int>(config->attrs->val.clusterDim.x);
  if (size >= fails_from) {
    error_pending = true;
    return 1;
  }
  *clusters = 4 * (16 / size) + 4 * (17 / size);
  return cudaSuccess;
}
