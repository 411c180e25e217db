// All steps of one LSTM layer, or of several as a wavefront, forward in one launch.
//
//   [i f g o] = act(h W_hh^T + pre + bias);  c = f c + i g;  h = o tanh(c)
//
// A group of blocks, a cluster or a part of a cooperative grid, runs a tile of the batch's rows.
// Each block owns some units: their weights stay in its shared memory and their cell states too;
// after each step it hands their h to every block of the group, in a cluster by writing it into
// their shared memory, in a grid through global memory, then all wait for each other. A team of
// 8 lanes computes one unit's four gates for 8 rows (or one): the lanes split the sum, and each
// ends with the gates of one row.
//
// In a wavefront each layer has blocks of its own, a step behind those of the layer below, whose h
// comes in as its own does: T + L - 1 exchanges in place of T L, and no products beforehand but
// those of the first layer. Bound at few rows by reading the weights from shared memory
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
  const int rank = blockIdx.x % g.size, layer = blockIdx.x / g.size % g.layers;
  const i64 first_row = static_cast<i64>(blockIdx.x / (g.size * g.layers)) * g.tile;
  const ForwardLayer& l = a.layer[layer];
  const i64 first_unit = static_cast<i64>(rank) * g.units;
  const int thread = threadIdx.y * 32 + threadIdx.x, threads = blockDim.y * 32;
  // A row of inputs: the layer's own h, then that of the layer below.
  const int columns = static_cast<int>((a.H + 3) / 4 * 4);
  const int width = columns * (g.layers > 1 ? 2 : 1), state = g.tile * width;
  T* const weights = reinterpret_cast<T*>(dynamic_shared());
  float* const h = reinterpret_cast<float*>(weights + 4 * g.units * g.stride);
  float* const c = h + (kCluster ? 2 : 1) * state;

  T* const h_of_call = static_cast<T*>(a.h) + layer * a.B * a.H;
  float* const c_of_call = static_cast<float*>(a.c) + layer * a.B * a.H;
  load_weights(static_cast<const T*>(l.weights), a.H, first_unit, g, columns, weights);
  if (layer)
    load_weights(static_cast<const T*>(l.inputs), a.H, first_unit, g, columns, weights + columns);
  for (int e = thread; e < state; e += threads) {
    const i64 row = first_row + e / width, k = e % width;
    const bool inside = row < a.B && k < a.H;
    const float initial = inside ? static_cast<float>(h_of_call[row * a.H + k]) : 0.0f;
    // The layer's first step reads the half of its tick.
    h[e] = kCluster && layer % 2 ? 0.0f : initial;
    if (kCluster) h[state + e] = layer % 2 ? initial : 0.0f;
  }
  for (int e = thread; e < g.tile * g.units; e += threads) {
    const i64 row = first_row + e / g.units, unit = first_unit + e % g.units;
    c[e] = row < a.B && unit < a.H ? c_of_call[row * a.H + unit] : 0.0f;
  }
  // Before this nobody may overwrite the initial h, nor write into a block that has not begun.
  group_sync<kCluster>();

  const int lane = threadIdx.x % kTeam, team = thread / kTeam, teams = threads / kTeam;
  const int items = g.units * (g.tile / kRows);
  const i64 ticks = a.steps + g.layers - 1;
  for (i64 tick = 0; tick < ticks; ++tick) {
    const i64 step = tick - layer, t = a.reverse ? a.steps - 1 - step : step;
    const bool active = step >= 0 && step < a.steps, last = step + 1 == a.steps;
    const float* now = h + (kCluster && tick % 2 ? state : 0);
    float* next = h + (kCluster && tick % 2 == 0 ? state : 0);
    // What the hand-over does not need is stored after it: the gates of this thread's last item.
    int kept = -1;  // its place among the cells
    cell::Gates<float> gate = {};
    T out = to_storage<T>(0.0f);
    const auto save = [&] {
      if (kept < 0) return;
      const i64 row = first_row + kept / g.units, unit = first_unit + kept % g.units;
      const i64 at = t * a.B + row;
      if (l.hidden) static_cast<T*>(l.hidden)[at * a.H + unit] = out;
      if (l.gates) {
        T* gates = static_cast<T*>(l.gates) + at * 4 * a.H + unit;
        gates[0] = to_storage<T>(gate.i);
        gates[a.H] = to_storage<T>(gate.f);
        gates[2 * a.H] = to_storage<T>(gate.g);
        gates[3 * a.H] = to_storage<T>(gate.o);
        static_cast<T*>(l.cells)[at * a.H + unit] = to_storage<T>(c[kept]);
      }
      if (last) {
        h_of_call[row * a.H + unit] = out;
        c_of_call[row * a.H + unit] = c[kept];
      }
    };
    // Whole warps stay together: the sum over lanes needs all of them.
    for (int base = 0; active && base < items; base += teams) {
      if (base + (team & ~3) >= items) break;
      const int item = base + team < items ? base + team : items - 1;
      const int u = item % g.units, first = item / g.units * kRows;
      const int r = first + (kRows == 1 ? 0 : lane);
      const i64 row = first_row + r, unit = first_unit + u, at = t * a.B + row;
      const bool there = base + team < items && row < a.B && unit < a.H;
      const bool owns = there && (kRows > 1 || lane == 0);
      float pre[4] = {};
      if (owns) {
        const float* from =
            layer ? nullptr : static_cast<const float*>(a.pre) + (a.ids ? a.ids[at] : at) * 4 * a.H;
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          if (from) pre[q] = from[q * a.H + unit];
          if (l.bias) pre[q] += static_cast<float>(static_cast<const T*>(l.bias)[q * a.H + unit]);
        }
      }
      float sum[4][kRows] = {};
      team_products<kRows>(weights + u * g.stride, g.units * g.stride, now + first * width, width,
                           layer ? width : columns, lane, sum);
      team_sum<kRows>(sum, lane);
      save();
      kept = -1;
      float sent[1] = {0.0f};
      if (owns) {
        kept = r * g.units + u;
        gate = cell::activate(cell::Gates<float>{sum[0][0] + pre[0], sum[1][0] + pre[1],
                                                 sum[2][0] + pre[2], sum[3][0] + pre[3]});
        out = to_storage<T>(cell::forward(gate, c[kept]));
        sent[0] = static_cast<float>(out);
      }
      if (kCluster) {
        // Of one row the lanes of a team share the blocks.
        constexpr int kStride = kRows == 1 ? kTeam : 1;
        if (kRows == 1) sent[0] = __shfl_sync(0xffffffffu, sent[0], threadIdx.x / kTeam * kTeam);
        if (!there) continue;
        float* to = next + r * width + unit;
        for (int b = kRows == 1 ? lane : 0; !last && b < g.size; b += kStride)
          store_in_block(to, layer * g.size + b, sent);
        for (int b = kRows == 1 ? lane : 0; layer + 1 < g.layers && b < g.size; b += kStride)
          store_in_block(to + columns, (layer + 1) * g.size + b, sent);
      } else if (owns) {
        static_cast<float*>(a.exchange)[((tick % 2 * g.layers + layer) * a.B + row) * a.H + unit] =
            sent[0];
      }
    }
    if (tick + 1 == ticks) {  // nothing was handed on
      save();
      break;
    }
    const auto token = group_arrive<kCluster>();
    save();
    group_wait<kCluster>(token);
    if (!kCluster) {
      const float* from =
          static_cast<const float*>(a.exchange) + (tick % 2 * g.layers + layer) * a.B * a.H;
      for (int e = thread; e < state; e += threads) {
        const int below = e % width >= columns;  // which was a step ahead
        const i64 row = first_row + e / width, k = e % width - below * columns;
        const i64 made = step + below;
        if (row >= a.B || k >= a.H || made < 0 || made >= a.steps || below > layer) continue;
        h[e] = from[(row - below * a.B) * a.H + k];
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
