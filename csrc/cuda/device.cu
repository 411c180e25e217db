// What the planner asks of a device.
#include <array>
#include <mutex>

#include "sequence.h"
#include "types.cuh"

namespace charlm {
namespace cuda {
namespace {

__global__ void cluster_probe() {}

// The largest cluster of blocks that each fill a multiprocessor's shared memory. 8 is portable;
// whether 16 fit depends on how many multiprocessors of a cluster's part of the chip work.
int max_cluster(int shared_memory, int* result) {
  cudaError_t code = cudaFuncSetAttribute(
      cluster_probe, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_memory);
  if (code == cudaSuccess)
    code = cudaFuncSetAttribute(cluster_probe, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(16);
  config.blockDim = dim3(512);
  config.dynamicSmemBytes = static_cast<size_t>(shared_memory);
  if (code == cudaSuccess)
    code = cudaOccupancyMaxPotentialClusterSize(result, cluster_probe, &config);
  return code;
}

int query(int device, DeviceFacts* facts) {
  int major = 0, minor = 0, shared = 0, clusters = 0, cooperative = 0;
  const std::array<std::pair<int*, cudaDeviceAttr>, 6> wanted{{
      {&major, cudaDevAttrComputeCapabilityMajor},
      {&minor, cudaDevAttrComputeCapabilityMinor},
      {&facts->multiprocessors, cudaDevAttrMultiProcessorCount},
      {&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin},
      {&clusters, cudaDevAttrClusterLaunch},
      {&cooperative, cudaDevAttrCooperativeLaunch},
  }};
  for (const auto& [value, attribute] : wanted) {
    const cudaError_t code = cudaDeviceGetAttribute(value, attribute, device);
    if (code != cudaSuccess) return code;
  }
  facts->sm = 10 * major + minor;
  facts->shared_memory = shared;
  facts->max_cluster = 1;
  if (!cooperative) facts->multiprocessors = 0;  // nothing that waits for a grid
  return clusters ? max_cluster(shared, &facts->max_cluster) : cudaSuccess;
}

}  // namespace

int device_facts(DeviceFacts* facts) {
  constexpr int kDevices = 64;
  static std::mutex mutex;
  static std::array<DeviceFacts, kDevices> known = {};
  int device = 0;
  const cudaError_t code = cudaGetDevice(&device);
  if (code != cudaSuccess) return code;
  if (device >= kDevices) return query(device, facts);
  const std::lock_guard<std::mutex> lock(mutex);
  if (!known[device].sm) {
    const int asked = query(device, &known[device]);
    if (asked) {
      known[device] = {};
      return asked;
    }
  }
  *facts = known[device];
  return cudaSuccess;
}

}  // namespace cuda
}  // namespace charlm
