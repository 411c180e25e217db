// What the persistent LSTM kernels share: a group of blocks, its exchange and barrier, and
// weights in shared memory.
#pragma once

#include "mailbox.cuh"
#include "plan.h"
#include "team.cuh"
#include "together.cuh"

namespace charlm {
namespace cuda {

constexpr int kSequenceThreads = 512;

// The part of a plan that a kernel reads.
struct Group {
  int layers, size, units, tile, stride;  // size: blocks a layer
  int dgates;                             // copies of them, backward
};

// That of a kernel on tensor cores.
struct TensorGroup : Group {
  int parts;
};

// kCluster: the blocks of a group are a cluster. Otherwise they are part of a cooperative grid.
template <bool kCluster>
__device__ __forceinline__ void group_sync() {
  if constexpr (kCluster)
    cluster_sync();
  else
    grid_sync();
}

struct AsTheyAre {
  template <class T>
  __device__ T operator()(T x) const {
    return x;
  }
};

// Rows q units + u of shared memory get rows q H + first + u of a matrix (4H, H), each value as
// `made` of it, in their first `columns`, zero outside.
template <class T, class Made = AsTheyAre>
__device__ __forceinline__ void load_weights(const T* weights, i64 H, i64 first, const Group& g,
                                             int columns, T* shared, Made made = {}) {
  const int rows = 4 * g.units;
  for (int j = threadIdx.y; j < rows; j += blockDim.y) {
    const int q = j / g.units;
    const i64 unit = first + j % g.units;
    const T* from = weights + (q * H + unit) * H;
    for (int k = threadIdx.x; k < columns; k += blockDim.x)
      shared[j * g.stride + k] = unit < H && k < H ? made(from[k]) : to_storage<T>(0.0f);
  }
}

inline Group group_of(const SequencePlan& plan) {
  return {plan.layers, plan.group, plan.units, plan.tile, plan.stride, plan.dgates};
}

template <class Args, class G>
int launch_group(void (*kernel)(Args, G), const SequencePlan& plan, const Args& args,
                 const G& group, void* stream) {
  const bool cluster = plan.kernel == SequenceKernel::kCluster;
  const int blocks = plan.layers * plan.group;
  return launch_together(kernel, {cluster ? blocks : 1, !cluster},
                         static_cast<i64>(blocks) * plan.groups, plan.threads, plan.shared_memory,
                         stream, args, group);
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
