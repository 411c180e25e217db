// All steps of an LSTM layer forward in one launch.
//
//   [i f g o] = act(h W_hh^T + pre + bias);  c = f c + i g;  h = o tanh(c)
//
// A group of blocks, a cluster or a part of a cooperative grid, runs a tile of the batch's rows.
// Each block owns some units: their weights stay in its shared memory and their cell states too;
// after each step it hands their h to every block of the group, in a cluster by writing it into
// their shared memory, in a grid through global memory, then all wait for each other. A team of
// 8 lanes computes one unit's four gates for 8 rows (or one): the lanes split the sum, and each
// ends with the gates of one row. Bound at few rows by reading the weights from shared memory
// (128 bytes a cycle) and by the barrier; at many rows by reading h, 12 loads for 128 FMAs.
#include <type_traits>

#include "../common/cell.h"
#include "group.cuh"
#include "sequence.h"

namespace charlm {
namespace cuda {
namespace {

template <class T, int kRows, bool kCluster>
__global__ void __launch_bounds__(kSequenceThreads, 1)
    sequence_forward_kernel(SequenceForward a, Group g) {
  const int rank = blockIdx.x % g.size;
  const i64 first_row = static_cast<i64>(blockIdx.x / g.size) * g.tile;
  const i64 first_unit = static_cast<i64>(rank) * g.units;
  const int thread = threadIdx.y * 32 + threadIdx.x, threads = blockDim.y * 32;
  const int columns = static_cast<int>((a.H + 3) / 4 * 4), state = g.tile * columns;
  T* const weights = reinterpret_cast<T*>(dynamic_shared());
  float* const h = reinterpret_cast<float*>(weights + 4 * g.units * g.stride);
  float* const c = h + (kCluster ? 2 : 1) * state;

  load_weights(static_cast<const T*>(a.weights), a.H, first_unit, g, weights);
  for (int e = thread; e < state; e += threads) {
    const i64 row = first_row + e / columns, k = e % columns;
    const bool inside = row < a.B && k < a.H;
    h[e] = inside ? static_cast<float>(static_cast<const T*>(a.h)[row * a.H + k]) : 0.0f;
    if (kCluster) h[state + e] = 0.0f;
  }
  for (int e = thread; e < g.tile * g.units; e += threads) {
    const i64 row = first_row + e / g.units, unit = first_unit + e % g.units;
    c[e] = row < a.B && unit < a.H ? static_cast<const float*>(a.c)[row * a.H + unit] : 0.0f;
  }
  // Before this nobody may overwrite the initial h, nor write into a block that has not begun.
  group_sync<kCluster>();

  const int lane = threadIdx.x % kTeam, team = thread / kTeam, teams = threads / kTeam;
  const int items = g.units * (g.tile / kRows);
  for (i64 step = 0; step < a.steps; ++step) {
    const i64 t = a.reverse ? a.steps - 1 - step : step;
    const bool last = step + 1 == a.steps;
    const float* now = h + (kCluster && step % 2 ? state : 0);
    float* next = h + (kCluster && step % 2 == 0 ? state : 0);
    // Whole warps stay together: the sum over lanes needs all of them.
    for (int base = 0; base < items; base += teams) {
      if (base + (team & ~3) >= items) break;
      const int item = base + team < items ? base + team : items - 1;
      const int u = item % g.units, first = item / g.units * kRows;
      const int r = first + (kRows == 1 ? 0 : lane);
      const i64 row = first_row + r, unit = first_unit + u, at = t * a.B + row;
      const bool owns = base + team < items && row < a.B && unit < a.H && (kRows > 1 || lane == 0);
      float pre[4] = {};
      if (owns) {
        const float* from = static_cast<const float*>(a.pre) + (a.ids ? a.ids[at] : at) * 4 * a.H;
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          pre[q] = from[q * a.H + unit];
          if (a.bias) pre[q] += static_cast<float>(static_cast<const T*>(a.bias)[q * a.H + unit]);
        }
      }
      float sum[4][kRows] = {};
      team_products<kRows>(weights + u * g.stride, g.units * g.stride, now + first * columns,
                           columns, columns, lane, sum);
      team_sum<kRows>(sum, lane);
      if (!owns) continue;
      const auto gate = cell::activate(cell::Gates<float>{sum[0][0] + pre[0], sum[1][0] + pre[1],
                                                          sum[2][0] + pre[2], sum[3][0] + pre[3]});
      float& state_of_cell = c[r * g.units + u];
      const T out = to_storage<T>(cell::forward(gate, state_of_cell));
      static_cast<T*>(a.hidden)[at * a.H + unit] = out;
      if (a.gates) {
        T* gates = static_cast<T*>(a.gates) + at * 4 * a.H + unit;
        gates[0] = to_storage<T>(gate.i);
        gates[a.H] = to_storage<T>(gate.f);
        gates[2 * a.H] = to_storage<T>(gate.g);
        gates[3 * a.H] = to_storage<T>(gate.o);
        static_cast<T*>(a.cells)[at * a.H + unit] = to_storage<T>(state_of_cell);
      }
      if (last) {
        static_cast<T*>(a.h)[row * a.H + unit] = out;
        static_cast<float*>(a.c)[row * a.H + unit] = state_of_cell;
      } else if (kCluster) {
        float* to = next + r * columns + unit;
        for (int b = 0; b < g.size; ++b) *in_block(to, b) = static_cast<float>(out);
      } else {
        static_cast<float*>(a.exchange)[(step % 2 * a.B + row) * a.H + unit] =
            static_cast<float>(out);
      }
    }
    if (last) break;  // nothing was handed on
    group_sync<kCluster>();
    if (!kCluster) {
      const float* from = static_cast<const float*>(a.exchange) + step % 2 * a.B * a.H;
      for (int e = thread; e < state; e += threads) {
        const i64 row = first_row + e / columns, k = e % columns;
        if (row < a.B && k < a.H) h[e] = from[row * a.H + k];
      }
      __syncthreads();
    }
  }
}

}  // namespace

int launch_lstm_sequence_forward(DType dtype, const SequencePlan& plan, const SequenceForward& args,
                                 void* stream) {
  return dispatch_sequence(dtype, plan, [&](auto type, auto rows, auto cluster) {
    using T = typename decltype(type)::type;
    return launch_group(sequence_forward_kernel<T, rows(), cluster()>, plan, args, stream);
  });
}

}  // namespace cuda
}  // namespace charlm
