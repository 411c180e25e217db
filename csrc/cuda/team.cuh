// Products by teams of lanes: four rows of weights times one row of inputs, or eight.
#pragma once

#include "types.cuh"

namespace charlm {
namespace cuda {

constexpr int kTeam = 8;

// sum[q][j] += this lane's part of weights[q, :] . inputs[j, :], both of `columns`, a multiple
// of 4. A warp's load takes 128 bytes of each of its teams' rows: conflict-free in shared memory,
// whole lines from the second-level cache, where the loads of one row are many in flight.
template <int kRows, class T>
__device__ __forceinline__ void team_products(const T* weights, i64 weights_stride,
                                              const Compute<T>* inputs, i64 inputs_stride,
                                              int columns, int lane, Compute<T> (&sum)[4][kRows]) {
  [[maybe_unused]] constexpr int kUnroll = kRows == 1 ? 2 : 1;
#pragma unroll kUnroll
  for (int k = 4 * lane; k < columns; k += 4 * kTeam) {
    Compute<T> w[4][4];
#pragma unroll
    for (int q = 0; q < 4; ++q) load<4>(weights + q * weights_stride + k, w[q]);
#pragma unroll
    for (int j = 0; j < kRows; ++j) {
      Compute<T> x[4];
      load<4>(inputs + j * inputs_stride + k, x);
#pragma unroll
      for (int q = 0; q < 4; ++q)
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[q][j] += w[q][i] * x[i];
    }
  }
}

// Adds over the kTeam lanes of a team, each the 4 values of kRows rows. With 8 rows lane s is
// left with those of row s, with one row every lane has them. The order is fixed.
template <int kRows, class C>
__device__ __forceinline__ void team_sum(C (&sum)[4][kRows], int lane) {
  constexpr unsigned kAll = 0xffffffffu;
  static_assert(kRows == 1 || kRows == kTeam, "a row a lane, or one row");
#pragma unroll
  for (int step = kTeam / 2; step; step /= 2) {
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      if constexpr (kRows == 1) {
        sum[q][0] += __shfl_xor_sync(kAll, sum[q][0], step);
      } else {
#pragma unroll
        for (int r = 0; r < step; ++r) {
          const bool upper = lane & step;
          const C sent = upper ? sum[q][r] : sum[q][r + step];
          const C kept = upper ? sum[q][r + step] : sum[q][r];
          sum[q][r] = kept + __shfl_xor_sync(kAll, sent, step);
        }
      }
    }
  }
}

}  // namespace cuda
}  // namespace charlm
