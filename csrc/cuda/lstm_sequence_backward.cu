// All steps of one LSTM layer, or of several as a wavefront, backward in one launch.
//
//   (dh + dy, dc) -> dgates before activation;  dh of the step before = dgates W_hh
//
// Blocks and groups as in lstm_sequence_forward.cu, with the same weights of the same units in
// shared memory: a block computes the dgates of its own units, multiplies them with its rows of
// W_hh, and hands each block of the group its part of that sum; the owner of a unit adds the
// parts in the order of the blocks. In a wavefront a layer runs a step behind the one above it,
// whose blocks multiply with their rows of W_ih as well and hand on the gradient of the layer's
// outputs in the same way. That moves H values a row and step where handing on the
// dgates would move 4 H. A team of 8 lanes computes 4 columns for 8 rows (or one), the lanes
// splitting the sum over dgates. What the cells need from global memory is on its way a step
// ahead. Bound as the forward kernel. The weights' gradients are one GEMM over all steps
// afterwards.
//
// Slots, mailboxes and who may end are the forward kernel's: parts are sent after the block's
// barrier of the step, which comes after all of its reads, so that who has a step's parts from all
// blocks knows that its layer has read the slot before.
#include <type_traits>

#include "group.cuh"
#include "saved.cuh"

namespace charlm {
namespace cuda {
namespace {

template <class T, int kRows, bool kCluster>
__global__ void __launch_bounds__(kSequenceThreads, 1)
    sequence_backward_kernel(SequenceBackward a, Group g) {
  const int rank = blockIdx.x % g.size, layer = blockIdx.x / g.size % g.layers;
  const int group = blockIdx.x / (g.size * g.layers);
  const BackwardLayer& l = a.layer[layer];
  const i64 first_row = static_cast<i64>(group) * g.tile;
  const i64 first_unit = static_cast<i64>(rank) * g.units;
  const int thread = threadIdx.y * 32 + threadIdx.x, threads = blockDim.y * 32;
  const int own = g.tile * g.units;
  const int columns = static_cast<int>((a.H + 3) / 4 * 4);
  const int sources = g.layers > 1 ? 2 : 1;  // of parts: the layer itself and the one above
  const i64 parts = static_cast<i64>(g.size) * own;
  T* const weights = reinterpret_cast<T*>(dynamic_shared());
  const int pitch = g.tile + (kRows > 1 ? kTilePad : 0), dgates = 4 * g.units * pitch;
  // Two where they fit: while a warp still multiplies one, others compute the next.
  float* const d = reinterpret_cast<float*>(weights + 4 * g.units * g.stride);  // (4 units, pitch)
  float* const dc = d + (kCluster ? g.dgates : 1) * dgates;                     // (tile, units)
  float* const received = dc + own;  // in a cluster: 2 x (sources, size, tile, units)
  Mailbox* const box = reinterpret_cast<Mailbox*>(received + 2 * sources * parts);
  // Of a cluster, the last blocks may have no units.
  const int size = kCluster ? (static_cast<int>(a.H) + g.units - 1) / g.units : g.size;
  // What there is of its tile, and the bytes of parts that a layer hands to this block in a pass.
  const int rows = static_cast<int>(g.tile < a.B - first_row ? g.tile : a.B - first_row);
  const int left = columns - static_cast<int>(first_unit);
  const int bytes = rows * (g.units < left ? g.units : left) * size * 4;
  // In a grid, the same for each block in global memory.
  const i64 blocks = gridDim.x, first_block = static_cast<i64>(group) * g.size * g.layers;
  float* const exchange = static_cast<float*>(a.exchange);

  float* const dh_of_call = static_cast<float*>(a.dh) + layer * a.B * a.H;
  float* const dc_of_call = static_cast<float*>(a.dc) + layer * a.B * a.H;
  const T* const first_cells = static_cast<const T*>(a.first) + layer * a.B * a.H;
  load_weights(static_cast<const T*>(l.weights), a.H, first_unit, g, columns, weights);
  if (layer)
    load_weights(static_cast<const T*>(l.inputs), a.H, first_unit, g, columns, weights + columns);
  for (int e = thread; e < (kCluster ? g.dgates : 1) * dgates; e += threads) d[e] = 0.0f;
  for (int e = thread; e < own; e += threads) {
    const i64 row = first_row + e / g.units, unit = first_unit + e % g.units;
    dc[e] = row < a.B && unit < a.H ? dc_of_call[row * a.H + unit] : 0.0f;
  }
  const bool top = layer + 1 == g.layers;
  const int steps = static_cast<int>(a.steps);
  const auto due = [&](int pass) {
    return (pass ? bytes : 0) + (!top && pass < steps ? bytes : 0);
  };
  if (kCluster && thread == 0 && rank < size) {
    open_mailbox(box);
    for (int pass = 0; pass < 2 && pass <= steps; ++pass) expect(&box->full[pass], due(pass));
  }
  group_sync<kCluster>();
  if (kCluster && rank >= size) return;

  const int lane = threadIdx.x % kTeam, team = thread / kTeam, teams = threads / kTeam;
  // Columns of the layer's own h, then of the layer below's.
  const int chunks = columns / 4 * (layer ? 2 : 1), items = chunks * (g.tile / kRows);
  const auto time_of = [&](int pass) -> i64 { return a.reverse ? pass : steps - 1 - pass; };
  const auto saved_of = [&](int pass, i64 row, i64 unit) {
    const auto c_before = [&](const T* cells, i64 before) {
      return pass + 1 == steps ? first_cells + row * a.H + unit : cells + before * a.H;
    };
    return load_saved<T>(a, l, top, time_of(pass), row, unit, c_before);
  };
  // Of a thread's first cell, which is the same in every pass: on its way a pass ahead.
  const i64 row_ahead = first_row + thread / g.units, unit_ahead = first_unit + thread % g.units;
  const bool fetches = thread < own && row_ahead < a.B && unit_ahead < a.H;
  Saved ahead = {};
  const auto fetch = [&](int pass) {
    if (fetches && pass >= 0 && pass < steps) ahead = saved_of(pass, row_ahead, unit_ahead);
  };
  // One pass more than there are steps: the last only adds up the gradient of the initial h.
  const int delay = g.layers - 1 - layer;
  const int start = kCluster ? delay : 0;
  const int ticks = kCluster ? start + steps + 1 : steps + g.layers;
  fetch(start - delay);
  for (int tick = start; tick < ticks; ++tick) {
    const int pass = tick - delay;
    const bool active = kCluster || (pass >= 0 && pass <= steps);
    const unsigned slot = static_cast<unsigned>(pass) % 2, phase = static_cast<unsigned>(pass) / 2;
    const i64 here = first_block + layer * g.size + rank;
    const float* const in = kCluster
                                ? received + slot * sources * parts
                                : exchange + ((tick + 1) % 2 * blocks + here) * sources * parts;
    float* const d_of_pass = d + (kCluster && slot && g.dgates > 1 ? dgates : 0);
    if (kCluster) {
      wait_for(&box->full[slot], phase);
      if (thread == 0) {
        if (pass + 2 <= steps) expect(&box->full[slot], due(pass + 2));
        // The pass before is over in all blocks of the layer: of use to who sends once more.
        if (!top && pass && pass + 1 < steps)
          arrive_in(&box->read[slot ^ 1], (layer + 1) * g.size + rank);
      }
    }
    for (int e = thread; active && e < own; e += threads) {
      const int r = e / g.units, u = e % g.units;
      const i64 row = first_row + r, unit = first_unit + u;
      if (row >= a.B || unit >= a.H) continue;
      float& dh_of_row = dh_of_call[row * a.H + unit];
      float dh = 0.0f;
      if (pass) {
#pragma unroll 8
        for (int b = 0; b < size; ++b) dh += in[static_cast<i64>(b) * own + e];
      } else {
        dh = dh_of_row;
      }
      if (pass == steps) {
        dh_of_row = dh;
        dc_of_call[row * a.H + unit] = dc[e];
        continue;
      }
      if (!top) {
        float dy = 0.0f;
#pragma unroll 8
        for (int b = 0; b < size; ++b) dy += in[parts + static_cast<i64>(b) * own + e];
        dh += dy;
      }
      const Saved s = e == thread ? ahead : saved_of(pass, row, unit);
      const auto gradient = cell::backward(s.gates, s.cell, s.before, dh + s.dy, dc[e]);
      const T rounded[4] = {to_storage<T>(gradient.i), to_storage<T>(gradient.f),
                            to_storage<T>(gradient.g), to_storage<T>(gradient.o)};
      T* out = static_cast<T*>(l.dgates) + (time_of(pass) * a.B + row) * 4 * a.H + unit;
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        out[q * a.H] = rounded[q];
        d_of_pass[(q * g.units + u) * pitch + r] = static_cast<float>(rounded[q]);
      }
    }
    if (tick + 1 == ticks) break;
    __syncthreads();

    for (int base = 0; active && pass < steps && base < items; base += teams) {
      if (base + (team & ~3) >= items) break;
      const int item = base + team < items ? base + team : items - 1;
      const int k = item % chunks * 4, first = item / chunks * kRows;
      float sum[4][kRows] = {};
      for (int j = lane; j < 4 * g.units; j += kTeam) {
        float w[4], x[kRows];
        load<4>(weights + j * g.stride + k, w);
        load<kRows>(d_of_pass + j * pitch + first, x);
#pragma unroll
        for (int q = 0; q < 4; ++q)
#pragma unroll
          for (int r = 0; r < kRows; ++r) sum[q][r] += w[q] * x[r];
      }
      team_sum<kRows>(sum, lane);
      if (base + team >= items || (kRows == 1 && lane)) continue;
      const int below = k >= columns, unit = k - below * columns;
      const int owner = (layer - below) * g.size + unit / g.units;
      const int r = first + (kRows == 1 ? 0 : lane);
      const i64 place = below * parts + static_cast<i64>(rank) * own + r * g.units + unit % g.units;
      const float values[4] = {sum[0][0], sum[1][0], sum[2][0], sum[3][0]};
      if (kCluster) {
        if (r >= rows) continue;
        if (below && pass >= 2) wait_for(&box->read[slot], phase - 1);
        const unsigned into = below ? slot : slot ^ 1;
        send_to(received + into * sources * parts + place, &box->full[into], owner, values);
      } else {
        store<4>(exchange + (tick % 2 * blocks + first_block + owner) * sources * parts + place,
                 values);
      }
    }
    if (kCluster) {
      fetch(pass + 1);
      if (g.dgates == 1) __syncthreads();
      continue;
    }
    const auto token = grid_arrive();
    fetch(pass + 1);
    grid_wait(token);
  }
}

}  // namespace

int launch_lstm_sequence_backward(DType dtype, const SequencePlan& plan,
                                  const SequenceBackward& args, void* stream) {
  if (args.steps > (1 << 30)) return cudaErrorInvalidValue;  // the kernel counts in 32 bits
  if (plan.parts) return launch_lstm_tensor_backward(dtype, plan, args, stream);
  return dispatch_sequence(dtype, plan, [&](auto type, auto rows, auto cluster) {
    using T = typename decltype(type)::type;
    return launch_group(sequence_backward_kernel<T, rows(), cluster()>, plan, args, group_of(plan),
                        stream);
  });
}

}  // namespace cuda
}  // namespace charlm
