// Block 0 sends 1, 2, 3, 4 to block 1, rightly or not: what the host says of each. NAME -> a line.
#include <string.h>

#include <stdexcept>

#include "cuda/mailbox.cuh"
#include "cuda/together.cuh"

namespace {

using namespace charlm::cuda;

float found[4];

void kernel(const char* name) {
  const auto is = [&](const char* other) { return strcmp(name, other) == 0; };
  auto* box = reinterpret_cast<Mailbox*>(dynamic_shared());
  auto* slot = reinterpret_cast<float*>(dynamic_shared() + sizeof(Mailbox));
  if (threadIdx.x == 0) {
    if (!is("not opened")) open_mailbox(box);
    if (is("two announce")) expect(&box->full[0], 16);
    expect(&box->full[0], is("too many bytes") ? 32 : 16);
  }
  cluster_sync();
  if (is("ends early") && blockIdx.x == 1) return;
  if (is("ends early"))
    for (int k = 0; k < 9; ++k) __syncthreads();
  if (blockIdx.x == 0) {
    const float sent[4] = {1, 2, 3, 4};
    if (threadIdx.x == 0) send_to(slot, &box->full[0], 1, sent);
    return;
  }
  if (!is("not waited for")) wait_for(&box->full[0], is("another phase") ? 1 : 0);
  if (threadIdx.x == 0) memcpy(found, slot, sizeof found);
}

}  // namespace

int main(int, char** arguments) {
  cudaLaunchAttribute cluster = {};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = dim3(2);
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(2);
  config.blockDim = dim3(32);
  config.dynamicSmemBytes = 64;
  config.attrs = &cluster;
  config.numAttrs = 1;
  try {
    cudaLaunchKernelEx(&config, kernel, static_cast<const char*>(arguments[1]));
    printf("%g %g %g %g\n", found[0], found[1], found[2], found[3]);
  } catch (const std::runtime_error& error) {
    puts(error.what());
  }
  return 0;
}
