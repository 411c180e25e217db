// All steps of one LSTM layer, or of several as a wavefront, forward in one launch.
//
//   [i f g o] = act(h W_hh^T + pre + bias);  c = f c + i g;  h = o tanh(c)
//
// A group of blocks, a cluster or a part of a cooperative grid, runs a tile of the batch's rows.
// Each block owns some units: their weights stay in its shared memory and their cell states too;
// after each step it hands their h to every block of the group. In a grid that goes through global
// memory, then all wait for each other. In a cluster it goes into their shared memory, into one of
// two slots by turns, and announces itself there: a block begins a step when all of its bytes have
// come, and nobody waits for a barrier. A team of 8 lanes computes one unit's four gates for 8 rows
// (or one): the lanes split the sum, and each ends with the gates of one row.
//
// In a wavefront each layer has blocks of its own, a step behind those of the layer below, whose h
// comes in as its own does: T + L - 1 exchanges in place of T L, and no products beforehand but
// those of the first layer. Bound at few rows by reading the weights from shared memory
// (128 bytes a cycle) and by the hand-over; at many rows by reading h, 12 loads for 128 FMAs. What
// is added to the products is loaded a step ahead at one row, and hidden by them at many.
//
// Why two slots are enough: a warp sends what it made of a slot after it has read it, so that who
// has all of a step's h knows that its layer has read the slot before. The layer below cannot know;
// each block tells one of its blocks, when it has the next step's h and with it the news of all.
// A block may end when it has taken its last step: whatever is sent to it, it waits for.
#include <type_traits>

#include "group.cuh"
#include "saved.cuh"

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
  Mailbox* const box = reinterpret_cast<Mailbox*>(c + g.tile * g.units);  // of a cluster
  // Of a cluster, the last blocks may have no units.
  const int size = kCluster ? (static_cast<int>(a.H) + g.units - 1) / g.units : g.size;
  // What there is of its tile, and the bytes of h that a layer hands to a block in a step.
  const int rows = static_cast<int>(g.tile < a.B - first_row ? g.tile : a.B - first_row);
  const int mine = static_cast<int>(a.H - first_unit), bytes = rows * columns * 4;

  T* const h_of_call = static_cast<T*>(a.h) + layer * a.B * a.H;
  float* const c_of_call = static_cast<float*>(a.c) + layer * a.B * a.H;
  load_weights(static_cast<const T*>(l.weights), a.H, first_unit, g, columns, weights);
  if (layer)
    load_weights(static_cast<const T*>(l.inputs), a.H, first_unit, g, columns, weights + columns);
  for (int e = thread; e < state; e += threads) {
    const i64 row = first_row + e / width, k = e % width;
    const bool inside = row < a.B && k < a.H;
    const float initial = inside ? static_cast<float>(h_of_call[row * a.H + k]) : 0.0f;
    h[e] = initial;
    if (kCluster) h[state + e] = 0.0f;
  }
  for (int e = thread; e < g.tile * g.units; e += threads) {
    const i64 row = first_row + e / g.units, unit = first_unit + e % g.units;
    c[e] = row < a.B && unit < a.H ? c_of_call[row * a.H + unit] : 0.0f;
  }
  const auto due = [&](int step) { return (step ? bytes : 0) + (layer ? bytes : 0); };
  if (kCluster && thread == 0) {
    open_mailbox(box);
    for (int step = 0; step < 2 && step < a.steps; ++step) expect(&box->full[step], due(step));
  }
  // Before this nobody may overwrite the initial h, nor write into a block that has not begun.
  group_sync<kCluster>();

  const int lane = threadIdx.x % kTeam, team = thread / kTeam, teams = threads / kTeam;
  // Units are a multiple of 4: the 4 teams of a warp have neighbouring units of the same rows.
  const int items = g.units * (g.tile / kRows);
  const auto outside = [&](int item) {  // all four
    return item / 4 * 4 % g.units >= mine || item / g.units * kRows >= rows;
  };
  if (kCluster) {
    // Who reads a slot must send, or others would take it for read.
    bool idle = true;
    for (int item = team; item < items; item += teams) idle &= outside(item);
    if (idle) return;
  }
  const int steps = static_cast<int>(a.steps), start = kCluster ? layer : 0;
  const int ticks = kCluster ? start + steps : steps + g.layers - 1;
  // At one row products may be done before what is added to them has come: to a team's first item,
  // of the same row and unit in every step, it is on its way a step ahead, its id two.
  constexpr bool kAhead = kRows == 1;
  const i64 row_ahead = first_row + team / g.units, unit_ahead = first_unit + team % g.units;
  const bool fetches =
      kAhead && layer == 0 && lane == 0 && team < items && row_ahead < a.B && unit_ahead < a.H;
  float ahead[4] = {};
  i64 source = 0;  // the row of `pre` that comes after it
  const auto find = [&](int step) {
    if (!fetches || step >= steps) return;
    const i64 at = static_cast<i64>(a.reverse ? steps - 1 - step : step) * a.B + row_ahead;
    source = a.ids ? a.ids[at] : at;
  };
  const auto fetch = [&](int step) {
    if (!fetches || step >= steps) return;
    const float* from = static_cast<const float*>(a.pre) + source * 4 * a.H + unit_ahead;
#pragma unroll
    for (int q = 0; q < 4; ++q) ahead[q] = from[q * a.H];
    find(step + 1);
  };
  find(0);
  fetch(0);
  for (int tick = start; tick < ticks; ++tick) {
    const int step = tick - layer;
    const i64 t = a.reverse ? steps - 1 - step : step;
    const bool active = kCluster || (step >= 0 && step < steps), last = step + 1 == steps;
    const unsigned slot = static_cast<unsigned>(step) % 2, phase = static_cast<unsigned>(step) / 2;
    const float* now = h + (kCluster && slot ? state : 0);
    if (kCluster) {
      wait_for(&box->full[slot], phase);
      if (thread == 0) {
        if (step + 2 < steps) expect(&box->full[slot], due(step + 2));
        // The step before is over in all blocks of the layer: of use to who sends once more.
        if (layer && step && step + 1 < steps)
          arrive_in(&box->read[slot ^ 1], (layer - 1) * g.size + rank);
      }
    }
    // What the hand-over does not need is stored after it: the gates of this thread's last item.
    int kept = -1;  // its place among the cells
    cell::Gates<float> gate = {};
    T out = to_storage<T>(0.0f);
    const auto save = [&] {
      if (kept < 0) return;
      const i64 row = first_row + kept / g.units, unit = first_unit + kept % g.units;
      const i64 at = t * a.B + row;
      save_cell(a, l, at, unit, out, gate, c, kept);
      if (last) {
        h_of_call[row * a.H + unit] = out;
        c_of_call[row * a.H + unit] = c[kept];
      }
    };
    // Whole warps stay together: the sum over lanes needs all of them.
    for (int base = 0; active && base < items; base += teams) {
      const int item = base + team;
      if (item >= items) break;
      if (outside(item)) continue;
      const int u = item % g.units, first = item / g.units * kRows;
      const int r = first + (kRows == 1 ? 0 : lane);
      const i64 row = first_row + r, unit = first_unit + u, at = t * a.B + row;
      const bool owns = row < a.B && unit < a.H && (kRows > 1 || lane == 0);
      float pre[4] = {};
      if (owns) {
        const bool here = kAhead && base == 0;
        const float* from =
            layer || here ? nullptr
                          : static_cast<const float*>(a.pre) + (a.ids ? a.ids[at] : at) * 4 * a.H;
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          if (here) pre[q] = ahead[q];
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
      float sent = 0.0f;
      if (owns) {
        kept = r * g.units + u;
        gate = cell::activate(cell::Gates<float>{sum[0][0] + pre[0], sum[1][0] + pre[1],
                                                 sum[2][0] + pre[2], sum[3][0] + pre[3]});
        out = to_storage<T>(cell::forward(gate, c[kept]));
        sent = static_cast<float>(out);
      }
      if (kCluster) {
        // A lane takes the 4 units of one row, and the lanes of that row share the blocks.
        float four[4];
#pragma unroll
        for (int q = 0; q < 4; ++q)
          four[q] = __shfl_sync(0xffffffffu, sent, q * kTeam + (kRows == 1 ? 0 : lane));
        __syncwarp();  // what the other lanes read, they have read
        constexpr int kLanes = kRows == 1 ? 32 : 4;
        const int first_block = kRows == 1 ? threadIdx.x : threadIdx.x / kTeam;
        float* const place = h + r * width + static_cast<int>(first_unit) + u / 4 * 4;
        const auto hand_to = [&](int to, unsigned into, float* from) {
          for (int b = first_block; r < rows && b < size; b += kLanes)
            send_to(from + (into ? state : 0), &box->full[into], to * g.size + b, four);
        };
        if (!last) hand_to(layer, slot ^ 1, place);
        if (layer + 1 < g.layers) {
          if (step >= 2) wait_for(&box->read[slot], phase - 1);
          hand_to(layer + 1, slot, place + columns);
        }
      } else if (owns) {
        static_cast<float*>(a.exchange)[((tick % 2 * g.layers + layer) * a.B + row) * a.H + unit] =
            sent;
      }
    }
    if (kCluster || tick + 1 == ticks) {  // in a grid, nothing was handed on
      save();
      fetch(step + 1);
      continue;
    }
    const auto token = grid_arrive();
    save();
    fetch(step + 1);
    grid_wait(token);
    const float* from =
        static_cast<const float*>(a.exchange) + (tick % 2 * g.layers + layer) * a.B * a.H;
    for (int e = thread; e < state; e += threads) {
      const int below = e % width >= columns;  // which was a step ahead
      const i64 row = first_row + e / width, k = e % width - below * columns;
      const int made = step + below;
      if (row >= a.B || k >= a.H || made < 0 || made >= steps || below > layer) continue;
      h[e] = from[(row - below * a.B) * a.H + k];
    }
    __syncthreads();
  }
}

}  // namespace

int launch_lstm_sequence_forward(DType dtype, const SequencePlan& plan, const SequenceForward& args,
                                 void* stream) {
  if (args.steps > (1 << 30)) return cudaErrorInvalidValue;  // the kernel counts in 32 bits
  if (plan.parts) return launch_lstm_tensor_forward(dtype, plan, args, stream);
  return dispatch_sequence(dtype, plan, [&](auto type, auto rows, auto cluster) -> int {
    using T = typename decltype(type)::type;
    if constexpr (sizeof(T) == 2) {
      return cudaErrorInvalidValue;  // those are multiplied on tensor cores
    } else {
      return launch_group(sequence_forward_kernel<T, rows(), cluster()>, plan, args, group_of(plan),
                          stream);
    }
  });
}

}  // namespace cuda
}  // namespace charlm
