// What the planner asks of a device.
#include <cuda_runtime.h>

#include <array>
#include <mutex>

#include "sequence.h"

namespace charlm {
namespace cuda {
namespace {

__global__ void cluster_probe() {}

// How many clusters of `size` blocks that each fill a multiprocessor's shared memory run at the
// same time. 8 is portable; whether 16 fit depends on how many multiprocessors of a cluster's part
// of the chip work. A driver that cannot say has none: no error, the grids serve without.
int clusters_at_once(int size, int shared_memory) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = static_cast<unsigned>(size);
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(size));
  config.blockDim = dim3(512);
  config.dynamicSmemBytes = static_cast<size_t>(shared_memory);
  config.attrs = &attribute;
  config.numAttrs = 1;
  int result = 0;
  cudaError_t code = cudaFuncSetAttribute(
      cluster_probe, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_memory);
  if (code == cudaSuccess && size > 8)
    code = cudaFuncSetAttribute(cluster_probe, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
  if (code == cudaSuccess) code = cudaOccupancyMaxActiveClusters(&result, cluster_probe, &config);
  if (code == cudaSuccess) return result;
  cudaGetLastError();  // else torch's next kernel would raise it
  return 0;
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
  for (std::size_t k = 0; clusters && k < facts->clusters.size(); ++k) {
    facts->clusters[k] = clusters_at_once(1 << k, shared);
    if (!facts->clusters[k]) break;
    facts->max_cluster = 1 << k;
  }
  return cudaSuccess;
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
