// One draw from each row of logits: draw.cuh has the draw, its exactness and what bounds it.
//
// Short rows take a warp each, four a block; long ones a block of 16 warps each. The weights of a
// short row under top_p stay in shared memory for the 16 passes over their keys.
#include "draw.cuh"
#include "sampling.h"

namespace charlm {
namespace cuda {
namespace {

constexpr int kRows = 4, kBlockWarps = 16;

template <class T>
__global__ void __launch_bounds__(kBlockWarps* kWarp, 1) sample_kernel(SampleRows a) {
  const bool together = blockDim.y == 1;
  const i64 r = static_cast<i64>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (r >= a.rows) return;  // whole warps, and whole blocks where one draws together
  double* const memory = reinterpret_cast<double*>(dynamic_shared());
  const Team team = {static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), memory};
  double* const cache = !together && a.sampling.top_p < 1 ? memory + threadIdx.y * a.V : nullptr;
  const Draw found = draw_row(team, static_cast<const T*>(a.logits) + r * a.V, a.V,
                              a.temperature[r], a.sampling, a.sampling.offset, r, cache);
  if (threadIdx.x) return;
  a.ids[r] = found.id;
  static_cast<Compute<T>*>(a.logprobs)[r] = static_cast<Compute<T>>(found.logprob);
}

}  // namespace

int launch_sample(DType dtype, const SampleRows& a, void* stream) {
  if (!a.rows) return cudaSuccess;
  const bool together = a.V > kWarpRow;
  const int rows = together ? 1 : kRows;
  const dim3 block(together ? kBlockWarps * kWarp : kWarp, static_cast<unsigned>(rows));
  i64 bytes = 0;
  if (together)
    bytes = kBlockWarps * Team::kSlots * static_cast<i64>(sizeof(double));
  else if (a.sampling.top_p < 1)
    bytes = rows * a.V * static_cast<i64>(sizeof(double));
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return launch_with(bytes, sample_kernel<T>, static_cast<unsigned>(div_up(a.rows, rows)), block,
                       stream, a);
  });
}

}  // namespace cuda
}  // namespace charlm
