// Storage and compute types, vector accesses, and the choice of a kernel by dtype.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernels.h"

namespace charlm {
namespace cuda {

template <class T>
struct ComputeType {
  using type = float;
};
template <>
struct ComputeType<double> {
  using type = double;
};
template <class T>
using Compute = typename ComputeType<T>::type;

// float -> T rounds to nearest even; the rest is exact.
template <class T, class C>
__device__ __forceinline__ T to_storage(C x) {
  return static_cast<T>(x);
}

template <class T, int W>
struct alignas(sizeof(T) * W) Pack {
  static_assert(sizeof(T) * W <= 16, "one access: rows are aligned to 16 bytes, not to more");
  T value[W];
};

// W consecutive elements as accesses of up to 16 bytes each, in the compute type.
template <int W, class T>
__device__ __forceinline__ void load(const T* from, Compute<T> (&to)[W]) {
  constexpr int kPart = sizeof(T) * W > 16 ? 16 / sizeof(T) : W;
#pragma unroll
  for (int p = 0; p < W; p += kPart) {
    const auto pack = *reinterpret_cast<const Pack<T, kPart>*>(from + p);
#pragma unroll
    for (int k = 0; k < kPart; ++k) to[p + k] = static_cast<Compute<T>>(pack.value[k]);
  }
}

template <int W, class T>
__device__ __forceinline__ void store(T* to, const Compute<T> (&from)[W]) {
  constexpr int kPart = sizeof(T) * W > 16 ? 16 / sizeof(T) : W;
#pragma unroll
  for (int p = 0; p < W; p += kPart) {
    Pack<T, kPart> pack;
#pragma unroll
    for (int k = 0; k < kPart; ++k) pack.value[k] = to_storage<T>(from[p + k]);
    *reinterpret_cast<Pack<T, kPart>*>(to + p) = pack;
  }
}

template <class T>
struct Type {
  using type = T;
};

// f(Type<T>) for the T of dtype.
template <class F>
int dispatch(DType dtype, const F& f) {
  switch (dtype) {
    case DType::kFloat:
      return f(Type<float>());
    case DType::kDouble:
      return f(Type<double>());
    case DType::kBFloat16:
      return f(Type<__nv_bfloat16>());
    case DType::kHalf:
      return f(Type<__half>());
  }
  return cudaErrorInvalidValue;
}

// The dynamic shared memory of a block.
#if defined(__CUDACC__)
__device__ __forceinline__ char* dynamic_shared() {
  extern __shared__ __align__(16) char memory[];
  return memory;
}
#else
inline char* dynamic_shared() { return cuda_on_host::dynamic_shared(); }
#endif

// Starts a kernel with `bytes` of dynamic shared memory; 0 or the error.
template <class... Parameters, class... Arguments>
int launch_with(i64 bytes, void (*kernel)(Parameters...), dim3 grid, dim3 block, void* stream,
                const Arguments&... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = static_cast<size_t>(bytes);
  config.stream = static_cast<cudaStream_t>(stream);
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

template <class... Parameters, class... Arguments>
int launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, void* stream,
           const Arguments&... arguments) {
  return launch_with(0, kernel, grid, block, stream, arguments...);
}

inline i64 div_up(i64 a, i64 b) { return (a + b - 1) / b; }

}  // namespace cuda
}  // namespace charlm
