// Row operations around the recurrence: gradient of a folded embedding, the check of ids, small
// elementwise work. All sums run in an order fixed by the sizes: no atomics.
#include <cstdio>

#include "reduce.cuh"

namespace charlm {
namespace cuda {
namespace {

// out[v, c] = sum over rows n with ids[n] == v of rows[n, c].
//
// A block owns one id and 32 columns; its warps take every kSumWarps-th group of 32 ids, find
// the matches by ballot and add their rows in order, then the warps' sums are added in order.
// Every output is written once. Bound by reading the ids V times from L2 when V is large, by
// the rows of the most frequent id when it is small.
constexpr int kSumWarps = 8;

template <class T>
__global__ void __launch_bounds__(kSumWarps* kWarp)
    segment_sum_kernel(const T* rows, const i64* ids, i64 n, i64 columns, T* out) {
  using C = Compute<T>;
  __shared__ C partial[kSumWarps][kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const i64 segment = blockIdx.x;
  const i64 column = static_cast<i64>(blockIdx.y) * kWarp + lane;
  C sum = 0;
  for (i64 base = static_cast<i64>(warp) * kWarp; base < n; base += kSumWarps * kWarp) {
    const bool match = base + lane < n && ids[base + lane] == segment;
    for (unsigned mask = __ballot_sync(kAllLanes, match); mask; mask &= mask - 1) {
      const i64 row = base + __ffs(mask) - 1;
      if (column < columns) sum += static_cast<C>(rows[row * columns + column]);
    }
  }
  partial[warp][lane] = sum;
  __syncthreads();
  if (warp || column >= columns) return;
#pragma unroll
  for (int w = 1; w < kSumWarps; ++w) sum += partial[w][lane];
  out[segment * columns + column] = to_storage<T>(sum);
}

__global__ void check_ids_kernel(const i64* ids, i64 n, i64 limit, bool targets) {
  const i64 k = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k >= n || (ids[k] >= 0 && ids[k] < limit)) return;
  printf("charlm_fast: %s holds %lld at position %lld, expected values from 0 to %lld\n",
         targets ? "targets" : "ids", ids[k], k, limit - 1);
  __trap();
}

template <class T>
__global__ void add_kernel(const Compute<T>* a, const T* b, T* out, i64 n) {
  using C = Compute<T>;
  const i64 k = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k < n) out[k] = to_storage<T>(a[k] + (b ? static_cast<C>(b[k]) : C(0)));
}

unsigned blocks(i64 n, int each) { return static_cast<unsigned>(div_up(n, each)); }

}  // namespace

int launch_segment_sum(DType dtype, const void* rows, const i64* ids, i64 n, i64 columns, i64 V,
                       void* out, void* stream) {
  if (!V || !columns) return cudaSuccess;
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const dim3 grid(static_cast<unsigned>(V), blocks(columns, kWarp));
    return launch(segment_sum_kernel<T>, grid, kSumWarps * kWarp, stream,
                  static_cast<const T*>(rows), ids, n, columns, static_cast<T*>(out));
  });
}

int launch_check_ids(const i64* ids, i64 n, i64 limit, bool targets, void* stream) {
  if (!n) return cudaSuccess;
  return launch(check_ids_kernel, blocks(n, 256), 256, stream, ids, n, limit, targets);
}

int launch_add(DType dtype, const void* a, const void* b, void* out, i64 n, void* stream) {
  if (!n) return cudaSuccess;
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return launch(add_kernel<T>, blocks(n, 256), 256, stream, static_cast<const Compute<T>*>(a),
                  static_cast<const T*>(b), static_cast<T*>(out), n);
  });
}

int launch_copy(const void* from, void* to, i64 bytes, void* stream) {
  return cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice,
                         static_cast<cudaStream_t>(stream));
}

int launch_copy_rows(const void* from, void* to, i64 pitch, i64 bytes, i64 rows, void* stream) {
  if (!rows || !bytes) return cudaSuccess;
  const size_t width = static_cast<size_t>(bytes);
  return cudaMemcpy2DAsync(to, static_cast<size_t>(pitch), from, width, width,
                           static_cast<size_t>(rows), cudaMemcpyDeviceToDevice,
                           static_cast<cudaStream_t>(stream));
}

// Takes the error back as well: torch's next kernel would raise it as its own.
const char* error_text(int code) {
  cudaGetLastError();
  return cudaGetErrorString(static_cast<cudaError_t>(code));
}

}  // namespace cuda
}  // namespace charlm
