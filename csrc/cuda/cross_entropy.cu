// Softmax cross-entropy of rows of logits and its gradient, and the sums that follow it.
#include "../common/cell.h"
#include "head.h"
#include "reduce.cuh"

namespace charlm {
namespace cuda {
namespace {

__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ double logarithm(double x) { return log(x); }

//   z = logits + bias;  loss[r] = log(sum exp(z - max)) + max - z[target]
//   gradient = softmax(z) - onehot(target), over the logits where T is the compute type
//
// kWarps warps share a row: one for the vocabularies of characters, with kRows rows a block, 8 for
// those of words. A row is read three times, after the first from L1; bound by memory. The
// exponential is computed twice rather than stored, which in half precision would round it.
template <class T, int kWarps, int kRows>
__global__ void __launch_bounds__(kWarps * kRows * kWarp)
    cross_entropy_kernel(const Compute<T>* logits, const T* bias, const i64* targets,
                         Compute<T>* loss, T* gradient, i64 rows, i64 V) {
  static_assert(kWarps == 1 || kRows == 1, "reduce_block() synchronises the block");
  using C = Compute<T>;
  constexpr int kStride = kWarps * kWarp;
  __shared__ C shared[kWarps];
  const i64 row = static_cast<i64>(blockIdx.x) * kRows + threadIdx.y;
  if (row >= rows) return;  // whole warps, and with several warps a row never
  const C* const from = logits + row * V;
  const auto z = [&](i64 k) { return bias ? from[k] + static_cast<C>(bias[k]) : from[k]; };
  C top = -INFINITY;
  for (i64 k = threadIdx.x; k < V; k += kStride) top = Max()(top, z(k));
  top = reduce_block<kWarps>(top, shared, Max());
  C sum = 0;
  for (i64 k = threadIdx.x; k < V; k += kStride) sum += cell::exponential(z(k) - top);
  sum = reduce_block<kWarps>(sum, shared, Plus());
  const i64 target = targets[row];
  if (threadIdx.x == 0) loss[row] = logarithm(sum) - (z(target) - top);
  if (!gradient) return;
  // The loss read z[target]; nobody may overwrite it before.
  if (kWarps == 1)
    __syncwarp();
  else
    __syncthreads();
  const C scale = C(1) / sum;
  for (i64 k = threadIdx.x; k < V; k += kStride) {
    const C p = cell::exponential(z(k) - top) * scale;
    gradient[row * V + k] = to_storage<T>(k == target ? p - C(1) : p);
  }
}

// out[p, c] = the sum of rows [p each, p each + each) of column c, on top of what is there if
// `add`. A block owns 32 columns of one part, its 8 warps stride through the rows.
constexpr int kSumWarps = 8;

template <class T, class Out>
__global__ void __launch_bounds__(kSumWarps* kWarp)
    column_sums_kernel(const T* rows, i64 n, i64 columns, i64 each, Out* out, bool add) {
  using C = Compute<T>;
  __shared__ C partial[kSumWarps][kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const i64 column = static_cast<i64>(blockIdx.x) * kWarp + lane, part = blockIdx.y;
  const i64 end = (part + 1) * each < n ? (part + 1) * each : n;
  C sum = 0;
  if (column < columns)
    for (i64 r = part * each + warp; r < end; r += kSumWarps)
      sum += static_cast<C>(rows[r * columns + column]);
  partial[warp][lane] = sum;
  __syncthreads();
  if (warp || column >= columns) return;
#pragma unroll
  for (int w = 1; w < kSumWarps; ++w) sum += partial[w][lane];
  Out* to = out + part * columns + column;
  *to = add ? *to + sum : sum;
}

// One block, in double: float32's precision over any number of rows.
constexpr int kTotalWarps = 16;

template <class T>
__global__ void __launch_bounds__(kTotalWarps* kWarp)
    total_kernel(const Compute<T>* losses, i64 n, T* out) {
  __shared__ double shared[kTotalWarps];
  double sum = 0;
  for (i64 r = threadIdx.x; r < n; r += kTotalWarps * kWarp) sum += static_cast<double>(losses[r]);
  sum = reduce_block<kTotalWarps>(sum, shared, Plus());
  if (threadIdx.x == 0) *out = to_storage<T>(static_cast<Compute<T>>(sum));
}

unsigned blocks(i64 n, int each) { return static_cast<unsigned>(div_up(n, each)); }

}  // namespace

int launch_cross_entropy(DType dtype, const CrossEntropy& a, void* stream) {
  if (!a.rows) return cudaSuccess;
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    constexpr int kRows = 4, kWarps = 8;
    const auto start = [&](auto kernel, dim3 grid, dim3 block) {
      return launch(kernel, grid, block, stream, static_cast<const Compute<T>*>(a.logits),
                    static_cast<const T*>(a.bias), a.targets, static_cast<Compute<T>*>(a.loss),
                    static_cast<T*>(a.gradient), a.rows, a.V);
    };
    if (a.V <= 1024)
      return start(cross_entropy_kernel<T, 1, kRows>, blocks(a.rows, kRows), dim3(kWarp, kRows));
    return start(cross_entropy_kernel<T, kWarps, 1>, blocks(a.rows, 1), kWarps * kWarp);
  });
}

int launch_column_sums(DType dtype, const void* rows, i64 n, i64 columns, void* partial, void* out,
                       bool add, void* stream) {
  if (!columns) return cudaSuccess;
  return dispatch(dtype, [&](auto type) -> int {
    using T = typename decltype(type)::type;
    using C = Compute<T>;
    const i64 parts = column_sum_parts(n);
    const dim3 grid(blocks(columns, kWarp), static_cast<unsigned>(parts));
    const bool whole = parts == 1;
    const int code = launch(column_sums_kernel<T, C>, grid, kSumWarps * kWarp, stream,
                            static_cast<const T*>(rows), n, columns, div_up(n, parts),
                            static_cast<C*>(whole ? out : partial), whole && add);
    if (whole || code != cudaSuccess) return code;
    return launch(column_sums_kernel<C, C>, blocks(columns, kWarp), kSumWarps * kWarp, stream,
                  static_cast<const C*>(partial), parts, columns, parts, static_cast<C*>(out), add);
  });
}

int launch_total(DType dtype, const void* losses, i64 n, void* out, void* stream) {
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return launch(total_kernel<T>, 1, kTotalWarps * kWarp, stream,
                  static_cast<const Compute<T>*>(losses), n, static_cast<T*>(out));
  });
}

}  // namespace cuda
}  // namespace charlm
