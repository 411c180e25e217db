// All steps of one LSTM layer, or of several as a wavefront, backward in one launch, in 16 bits or,
// of float, in TF32.
//
//   (dh + dy, dc) -> dgates before activation;  dh of the step before = dgates W_hh
//
// Groups of blocks, parts of the sums, slots, mailboxes, who waits for whom and who may end: as in
// lstm_sequence_backward.cu, but for what a block does in a step. Every thread computes the dgates
// of a cell, which are kept as tensor cores take them, in 16 bits or rounded to TF32; after a
// barrier of the block tensor cores multiply them with the block's rows of W_hh, and of W_ih in a
// wavefront: 16 columns and 8 rows of the batch at a time, 8 kOctets units deep. A warp holds its
// weights in registers for all steps, 64 of them a lane; wider layers are
// lstm_sequence_backward.cu's. Parts lie with the rows side by side: two lanes swap halves of their
// sums, and each has 4 rows of a column, 16 bytes.
//
// dgates lie in one of two buffers in a cluster: a step's are read before the next step's barrier,
// after which they are overwritten. What the cells need from global memory is on its way a step
// ahead. Bound by handing on the parts, 4 H bytes a row and block, and by the hand-over.
#include <type_traits>

#include "group.cuh"
#include "saved.cuh"
#include "tensor.cuh"

namespace charlm {
namespace cuda {
namespace {

// Products of the four gates of 8 kOctets units.
template <class T, int kOctets>
constexpr int kDeep = 4 * kOctets * kOctet / kColumns<T>;

// Tiles of 16 columns of which a warp holds the weights of 8 kOctets units: 64 registers. More than
// 5 of 8 units no grid has.
template <class T, int kOctets, bool kCluster>
constexpr int kWarpTiles = kDeep<T, kOctets> == 1 && !kCluster ? 5 : 8 / kDeep<T, kOctets>;

template <class T, int kOctets, bool kCluster>
__global__ void __launch_bounds__(kSequenceThreads, 1)
    tensor_backward_kernel(SequenceBackward a, TensorGroup g) {
  constexpr int kUnits = kOctets * kOctet, kTiles = kWarpTiles<T, kOctets, kCluster>;
  constexpr int kProducts = kDeep<T, kOctets>;
  const int rank = blockIdx.x % g.size, layer = blockIdx.x / g.size % g.layers;
  const int group = blockIdx.x / (g.size * g.layers);
  const BackwardLayer& l = a.layer[layer];
  const int first_row = group * g.tile, first_unit = rank * kUnits;
  const int lane = threadIdx.x, thread = threadIdx.y * 32 + lane, threads = blockDim.y * 32;
  const int warps = blockDim.y, own = g.tile * kUnits, dgates = g.tile * g.stride;
  const int sources = g.layers > 1 ? 2 : 1;  // of parts: the layer itself and the one above
  const int parts = g.size * own;
  T* const d = reinterpret_cast<T*>(dynamic_shared());  // (copies, tile, stride)
  float* const dc = reinterpret_cast<float*>(d + (kCluster ? 2 : 1) * dgates);  // (units, tile)
  // In a cluster 2 x (sources, size, units, tile); in a grid sums of every g.parts-th.
  float* const received = dc + own;
  Mailbox* const box = reinterpret_cast<Mailbox*>(received + 2 * sources * parts);
  // Of a cluster, the last blocks may have no units.
  const int size = kCluster ? static_cast<int>((a.H + kUnits - 1) / kUnits) : g.size;
  // What there is of its tile, and the bytes of parts that a layer hands to this block in a pass.
  const int rows = static_cast<int>(g.tile < a.B - first_row ? g.tile : a.B - first_row);
  const int mine = static_cast<int>(a.H - first_unit < kUnits ? a.H - first_unit : kUnits);
  const int bytes = (rows + 3) / 4 * 4 * mine * size * 4;
  // In a grid, the same for each block in global memory.
  const int blocks = gridDim.x, first_block = group * g.size * g.layers;
  float* const exchange = static_cast<float*>(a.exchange);

  // The place of a cell in what the call begins with and leaves.
  const auto of_call = [&](int r, int u) {
    return (static_cast<i64>(layer) * a.B + first_row + in_place(r)) * a.H + first_unit + u;
  };
  float* const dh_of_call = static_cast<float*>(a.dh);
  float* const dc_of_call = static_cast<float*>(a.dc);
  for (int e = thread; e < (kCluster ? 2 : 1) * dgates; e += threads) d[e] = to_storage<T>(0.0f);
  for (int e = thread; e < own; e += threads) {
    const int r = e % g.tile, u = e / g.tile;
    dc[e] = r < rows && u < mine ? dc_of_call[of_call(r, u)] : 0.0f;
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

  // 16 columns each: those of the layer's own h, then of the layer below's.
  const int tiles = static_cast<int>((a.H + 15) / 16), all = layer ? 2 * tiles : tiles;
  const int quad = lane / 4, deep = lane % 4 * kLane<T>;
  Words held[kTiles][kProducts][2] = {};
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
    const int tile = static_cast<int>(threadIdx.y) + i * warps;
    const bool below = tile >= tiles;
    const T* const from = static_cast<const T*>(below ? l.inputs : l.weights);
#pragma unroll
    for (int p = 0; p < kProducts; ++p) {
      const i64 q = (p * kColumns<T> + deep) / kUnits,
                unit = first_unit + (p * kColumns<T> + deep) % kUnits;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const i64 column = (tile - (below ? tiles : 0)) * 16 + half * 8 + quad;
        if (tile < all && column < a.H)
          held[i][p][half] = gather(from + (q * a.H + unit) * a.H + column, a.H, a.H - unit);
      }
    }
  }
  group_sync<kCluster>();
  if (kCluster && rank >= size) return;

  const auto time_of = [&](int pass) { return a.reverse ? pass : steps - 1 - pass; };
  const auto saved_of = [&](int pass, int r, int u) {
    const auto c_before = [&](const T* cells, i64 before) {
      const bool last = pass + 1 == steps;
      return last ? static_cast<const T*>(a.first) + of_call(r, u) : cells + before * a.H;
    };
    return load_saved<T>(a, l, top, time_of(pass), first_row + r, first_unit + u, c_before);
  };
  // Of a thread's first cell, which is the same in every pass.
  const bool fetches = thread % g.tile < rows && thread / g.tile < mine;
  Saved ahead = {};
  const auto fetch = [&](int pass) {
    const int e = in_place(thread);
    if (fetches && pass >= 0 && pass < steps) ahead = saved_of(pass, e % g.tile, e / g.tile);
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
    const float* const in = received + (kCluster && slot ? sources * parts : 0);
    T* const d_of_pass = d + (kCluster && slot ? dgates : 0);
    if (kCluster) {
      wait_for(&box->full[slot], phase);
      if (thread == 0) {
        if (pass + 2 <= steps) expect(&box->full[slot], due(pass + 2));
        // The pass before is over in all blocks of the layer: of use to who sends once more.
        if (!top && pass && pass + 1 < steps)
          arrive_in(&box->read[slot ^ 1], (layer + 1) * g.size + rank);
      }
    }
    if (!kCluster && active && (pass || !top)) {
      // A thread adds every g.parts-th part of 4 cells.
      const int here = (tick + 1) % 2 * blocks + first_block + layer * g.size + rank;
      const float* const from = exchange + static_cast<i64>(here) * sources * parts;
      for (int e = in_place(thread) * 4; e < (top ? 1 : 2) * g.parts * own; e += threads * 4) {
        const int source = e / own / g.parts;
        float sum[4] = {};
#pragma unroll 2
        for (int b = e / own % g.parts; b < size; b += g.parts) {
          float more[4];
          load<4>(from + source * parts + b * own + e % own, more);
#pragma unroll
          for (int k = 0; k < 4; ++k) sum[k] += more[k];
        }
        store<4>(received + e, sum);
      }
      __syncthreads();
    }
    // What the products do not need is stored after them: the dgates of this thread's last cell,
    // but for float's, which would take registers that the products need.
    constexpr bool kSavesFirst = sizeof(T) == 4;
    int kept = -1;
    T rounded[4] = {};
    const auto save = [&] {
      if (kept < 0) return;
      const int e = in_place(kept);
      const i64 at = time_of(pass) * a.B + first_row + e % g.tile;
      T* out = static_cast<T*>(l.dgates) + at * 4 * a.H + first_unit + e / g.tile;
#pragma unroll
      for (int q = 0; q < 4; ++q) out[q * a.H] = rounded[q];
    };
    for (int e = in_place(thread); active && e < own; e += threads) {
      const int r = e % g.tile, u = e / g.tile;
      if (r >= rows || u >= mine) continue;
      float dh = 0.0f;
      if (pass) {
#pragma unroll 8
        for (int b = 0; b < (kCluster ? size : g.parts); ++b) dh += in[b * own + e];
      } else {
        dh = dh_of_call[of_call(r, u)];
      }
      if (pass == steps) {
        dh_of_call[of_call(r, u)] = dh;
        dc_of_call[of_call(r, u)] = dc[e];
        continue;
      }
      if (!top) {
        float dy = 0.0f;
        const float* const of_above = in + (kCluster ? parts : g.parts * own);
#pragma unroll 8
        for (int b = 0; b < (kCluster ? size : g.parts); ++b) dy += of_above[b * own + e];
        dh += dy;
      }
      const Saved s = e == thread ? ahead : saved_of(pass, r, u);
      const auto gradient = cell::backward(s.gates, s.cell, s.before, dh + s.dy, dc[e]);
      save();
      kept = e;
      rounded[0] = to_storage<T>(gradient.i);
      rounded[1] = to_storage<T>(gradient.f);
      rounded[2] = to_storage<T>(gradient.g);
      rounded[3] = to_storage<T>(gradient.o);
#pragma unroll
      for (int q = 0; q < 4; ++q) d_of_pass[r * g.stride + q * kUnits + u] = operand(rounded[q]);
      if (kSavesFirst) save(), kept = -1;
    }
    if (tick + 1 == ticks) break;
    if (active) __syncthreads();  // the same of a block's threads

    for (int n = 0; active && pass < steps && n < rows; n += kTensorRows) {
      const auto load_x = [&](int p) {
        return *reinterpret_cast<const Words*>(d_of_pass + (n + in_place(quad)) * g.stride +
                                               p * kColumns<T> + deep);
      };
      Words x[kTiles > 1 ? kProducts : 1];
#pragma unroll
      for (int p = 0; kTiles > 1 && p < kProducts; ++p) x[p] = load_x(p);
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        const int tile = in_place(static_cast<int>(threadIdx.y) + i * warps);
        if (tile >= all) break;
        __syncwarp();  // whole warps multiply
        float sum[4] = {};
#pragma unroll
        for (int p = 0; p < kProducts; ++p)
          multiply<T>(held[i][p][0], held[i][p][1], kTiles > 1 ? x[p] : load_x(p), sum);
        // Of columns g and g + 8 an even lane takes the first, an odd one the second.
        const bool odd = lane % 2;
        const float swapped[2] = {__shfl_xor_sync(0xffffffffu, odd ? sum[0] : sum[2], 1),
                                  __shfl_xor_sync(0xffffffffu, odd ? sum[1] : sum[3], 1)};
        const float values[4] = {odd ? swapped[0] : sum[0], odd ? swapped[1] : sum[1],
                                 odd ? sum[2] : swapped[0], odd ? sum[3] : swapped[1]};
        const int below = tile >= tiles, r = n + lane % 4 / 2 * 4;
        const int column = (tile - below * tiles) * 16 + odd * 8 + in_place(quad);
        if (r >= rows || column >= a.H) continue;
        const int owner = (layer - below) * g.size + column / kUnits;
        const int place = below * parts + rank * own + column % kUnits * g.tile + r;
        if (kCluster) {
          if (below && pass >= 2) wait_for(&box->read[slot], phase - 1);
          const unsigned into = below ? slot : slot ^ 1;
          send_to(received + into * sources * parts + place, &box->full[into], owner, values);
        } else {
          const i64 to =
              static_cast<i64>(tick % 2 * blocks + first_block + owner) * sources * parts;
          store<4>(exchange + to + place, values);
        }
      }
    }
    if (kCluster) {
      if (!kSavesFirst) save();
      fetch(pass + 1);
      continue;
    }
    const auto token = grid_arrive();
    if (!kSavesFirst) save();
    fetch(pass + 1);
    grid_wait(token);
  }
}

}  // namespace

int launch_lstm_tensor_backward(DType dtype, const SequencePlan& plan, const SequenceBackward& args,
                                void* stream) {
  if (args.steps > (1 << 30)) return cudaErrorInvalidValue;  // the kernel counts in 32 bits
  const TensorGroup group = {group_of(plan), plan.parts};
  const bool cluster = plan.kernel == SequenceKernel::kCluster;
  return dispatch(dtype, [&](auto type) -> int {
    using T = typename decltype(type)::type;
    if constexpr (sizeof(T) == 8) {
      return cudaErrorInvalidValue;
    } else {
      const auto start = [&](auto octets) {
        return launch_group(cluster ? tensor_backward_kernel<T, octets(), true>
                                    : tensor_backward_kernel<T, octets(), false>,
                            plan, args, group, stream);
      };
      if (plan.units == 8) return start(std::integral_constant<int, 1>());
      if (plan.units == 16) return start(std::integral_constant<int, 2>());
      return start(std::integral_constant<int, 4>());
    }
  });
}

}  // namespace cuda
}  // namespace charlm
