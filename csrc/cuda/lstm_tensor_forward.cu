// All steps of one LSTM layer, or of several as a wavefront, forward in one launch, in 16 bits or,
// of float, in TF32.
//
//   [i f g o] = act(h W_hh^T + pre + bias);  c = f c + i g;  h = o tanh(c)
//
// Groups of blocks, slots, mailboxes, who waits for whom and who may end: as in
// lstm_sequence_forward.cu, but for what a block does in a step. The products are those of tensor
// cores: a warp multiplies the 32 rows of weights of 8 units with 8 rows of h at a time, over its
// share of the columns, and leaves its sums in shared memory; after a barrier of the block every
// thread adds the shares of a cell's gates, in their order, and computes it. The weights lie in
// registers where they fit (kHeld times kColumns a warp), else in shared memory. h is kept and
// handed over as tensor cores take it, in 16 bits or rounded to TF32: 8 or 4 units are one store of
// 16 bytes. What the call gets of it is rounded to its dtype alone.
//
// A slot is read before the block's barrier and what was made of it is sent after, so that who has
// a step's h of all blocks knows that its layer has read the slot before. The sums of a step, in
// one of two buffers in a cluster, are read before the next step's barrier and overwritten after.
// What the cells need from global memory is on its way while a block waits and multiplies.
//
// Bound by the hand-over and the cell at few rows; with weights in registers the products and their
// loads of h take less than either up to H = 512.
#include <type_traits>

#include "group.cuh"
#include "saved.cuh"
#include "tensor.cuh"

namespace charlm {
namespace cuda {
namespace {

// What a warp multiplies: 16 rows of weights are two gates of 8 units.
struct Fragment {
  Words gate[4];
};

struct alignas(16) Sums {
  cell::Gates<float> of;
};

template <class T, int kHeld, bool kCluster>
__global__ void __launch_bounds__(kSequenceThreads, 1)
    tensor_forward_kernel(SequenceForward a, TensorGroup g) {
  const int rank = blockIdx.x % g.size, layer = blockIdx.x / g.size % g.layers;
  const int first_row = blockIdx.x / (g.size * g.layers) * g.tile;
  const ForwardLayer& l = a.layer[layer];
  const int first_unit = rank * g.units;
  const int lane = threadIdx.x, thread = threadIdx.y * 32 + lane, threads = blockDim.y * 32;
  // A row of inputs: the layer's own h, then that of the layer below.
  const int columns = static_cast<int>((a.H + kColumns<T> - 1) / kColumns<T> * kColumns<T>);
  // Of them, with zeros.
  const int sent = static_cast<int>((a.H + kLane<T> - 1) / kLane<T> * kLane<T>);
  const int state = g.tile * g.stride, cells = g.tile * g.units, pitch = g.units + 1;
  constexpr int kSlots = kCluster ? 2 : 1;
  T* const h = reinterpret_cast<T*>(dynamic_shared());  // (slots, tile, stride)
  T* const weights = h + kSlots * state;                // (4 units, stride) where they are not held
  Sums* const sums = reinterpret_cast<Sums*>(           // (slots, parts, tile, units + 1)
      weights + (kHeld ? 0 : 4 * g.units * g.stride));
  const int shares = g.parts * g.tile * pitch;
  float* const c = reinterpret_cast<float*>(sums + kSlots * shares);  // (tile, units)
  float* const bias = c + cells;                                      // (4, units)
  Mailbox* const box = reinterpret_cast<Mailbox*>(bias + 4 * g.units);
  // Of a cluster, the last blocks may have no units.
  const int size = kCluster ? (static_cast<int>(a.H) + g.units - 1) / g.units : g.size;
  const int rows = static_cast<int>(g.tile < a.B - first_row ? g.tile : a.B - first_row);
  const int bytes = rows * sent * static_cast<int>(sizeof(T));

  T* const h_of_call = static_cast<T*>(a.h) + layer * a.B * a.H;
  float* const c_of_call = static_cast<float*>(a.c) + layer * a.B * a.H;
  for (int e = thread; e < kSlots * state; e += threads) {
    const int r = e / g.stride % g.tile, k = e % g.stride;
    const bool inside = e < state && r < rows && k < a.H;
    h[e] = inside ? operand(h_of_call[(first_row + r) * a.H + k]) : to_storage<T>(0.0f);
  }
  for (int e = thread; e < cells; e += threads) {
    const i64 row = first_row + e / g.units, unit = first_unit + e % g.units;
    c[e] = row < a.B && unit < a.H ? c_of_call[row * a.H + unit] : 0.0f;
  }
  for (int e = thread; e < 4 * g.units; e += threads) {
    const i64 unit = first_unit + e % g.units;
    const bool inside = l.bias && unit < a.H;
    bias[e] =
        inside ? static_cast<float>(static_cast<const T*>(l.bias)[e / g.units * a.H + unit]) : 0.0f;
  }
  const auto due = [&](int step) { return (step ? bytes : 0) + (layer ? bytes : 0); };
  if (kCluster && thread == 0) {
    open_mailbox(box);
    for (int step = 0; step < 2 && step < a.steps; ++step) expect(&box->full[step], due(step));
  }

  // A warp's share: 8 units, every g.parts-th of the products of kColumns.
  const int own = columns / kColumns<T>, products = layer ? 2 * own : own;
  const int octets = g.units / kOctet, shared = octets * g.parts, warps = blockDim.y;
  const int row = lane / 4, column = lane % 4 * kLane<T>;
  const auto fragment = [&](int octet, int p) {
    const bool below = p >= own;
    const auto* from = static_cast<const T*>(below ? l.inputs : l.weights);
    const i64 unit = first_unit + octet * kOctet + row;
    const i64 k = (p - (below ? own : 0)) * kColumns<T> + column;
    Fragment found;
#pragma unroll
    for (int q = 0; q < 4; ++q)
      found.gate[q] = gather(from + (q * a.H + unit) * a.H + k, 1, unit < a.H ? a.H - k : 0);
    return found;
  };
  Fragment held[kHeld ? kHeld : 1] = {};
  if constexpr (kHeld > 0) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int p = static_cast<int>(threadIdx.y) / octets + i * g.parts;
      if (p < products) held[i] = fragment(threadIdx.y % octets, p);
    }
  } else {
    const auto made = [](T x) { return operand(x); };
    load_weights(static_cast<const T*>(l.weights), a.H, first_unit, g, columns, weights, made);
    if (layer)
      load_weights(static_cast<const T*>(l.inputs), a.H, first_unit, g, columns, weights + columns,
                   made);
  }
  // Before this nobody may overwrite the initial h, nor write into a block that has not begun.
  group_sync<kCluster>();
  if (kCluster && rank >= size) return;

  const int steps = static_cast<int>(a.steps), start = kCluster ? layer : 0;
  const int ticks = kCluster ? start + steps : steps + g.layers - 1;
  // The first cell of a thread is of the same row and unit in every step.
  const int first_r = thread / g.units, first_u = thread % g.units;
  const auto time_of = [&](int step) { return a.reverse ? steps - 1 - step : step; };
  const auto row_of_pre = [&](int step, int r) -> i64 {
    const i64 at = time_of(step) * a.B + first_row + r;
    return a.ids ? a.ids[at] : at;
  };
  const auto load_pre = [&](i64 from, int u) -> cell::Gates<float> {
    const float* pre = static_cast<const float*>(a.pre) + from * 4 * a.H + first_unit + u;
    return {pre[0], pre[a.H], pre[2 * a.H], pre[3 * a.H]};
  };
  const bool fetches = layer == 0 && first_r < rows && first_unit + first_u < a.H;
  cell::Gates<float> ahead = {};  // of the thread's first cell in the next step
  i64 source = 0;                 // of that after it
  const auto fetch = [&](int step) {
    if (!fetches || step >= steps) return;
    ahead = load_pre(source, first_u);
    if (step + 1 < steps) source = row_of_pre(step + 1, first_r);
  };
  if (fetches && steps > 0) source = row_of_pre(0, first_r);
  fetch(0);

  for (int tick = start; tick < ticks; ++tick) {
    const int step = tick - layer;
    const i64 t = time_of(step);
    const bool active = kCluster || (step >= 0 && step < steps), last = step + 1 == steps;
    const unsigned slot = static_cast<unsigned>(step) % 2, phase = static_cast<unsigned>(step) / 2;
    const T* const now = h + (kCluster && slot ? state : 0);
    Sums* const sums_now = sums + (kCluster && slot ? shares : 0);
    if (kCluster) {
      wait_for(&box->full[slot], phase);
      if (thread == 0) {
        if (step + 2 < steps) expect(&box->full[slot], due(step + 2));
        // The step before is over in all blocks of the layer: of use to who sends once more.
        if (layer && step && step + 1 < steps)
          arrive_in(&box->read[slot ^ 1], (layer - 1) * g.size + rank);
      }
    }
    for (int w = threadIdx.y; active && w < shared; w += warps) {
      const int octet = w % octets, part = w / octets;
      for (int n = 0; n < rows; n += kTensorRows) {
        __syncwarp();  // whole warps multiply
        const T* const x = now + (n + row) * g.stride + column;
        float sum[2][4] = {};
        const auto multiply_all = [&](const Fragment& f, int p) {
          const Words inputs = *reinterpret_cast<const Words*>(x + p * kColumns<T>);
          multiply<T>(f.gate[0], f.gate[1], inputs, sum[0]);
          multiply<T>(f.gate[2], f.gate[3], inputs, sum[1]);
        };
        if constexpr (kHeld > 0) {
#pragma unroll
          for (int i = 0; i < kHeld; ++i)
            if (part + i * g.parts < products) multiply_all(held[i], part + i * g.parts);
        } else {
#pragma unroll 2
          for (int p = part; p < products; p += g.parts) {
            Fragment f;
#pragma unroll
            for (int q = 0; q < 4; ++q)
              f.gate[q] = *reinterpret_cast<const Words*>(
                  weights + (q * g.units + octet * kOctet + row) * g.stride + p * kColumns<T> +
                  column);
            multiply_all(f, p);
          }
        }
        Sums* const to =
            sums_now + (part * g.tile + n + lane % 4 * 2) * pitch + octet * kOctet + row;
        to[0] = {{sum[0][0], sum[0][2], sum[1][0], sum[1][2]}};
        to[pitch] = {{sum[0][1], sum[0][3], sum[1][1], sum[1][3]}};
      }
    }
    if (active) __syncthreads();  // the same of a block's threads

    // What the hand-over does not need is stored after it: that of this thread's last cell.
    int kept = -1;
    cell::Gates<float> gate = {};
    T out = to_storage<T>(0.0f);
    const auto save = [&] {
      if (kept < 0) return;
      const i64 of_call = (first_row + kept / g.units) * a.H + first_unit + kept % g.units;
      const i64 at = t * a.B + first_row + kept / g.units;
      const i64 unit = first_unit + kept % g.units;
      save_cell(a, l, at, unit, out, gate, c, kept);
      if (last) {
        h_of_call[of_call] = out;
        c_of_call[of_call] = c[kept];
      }
    };
    for (int e = thread; active && e < cells; e += threads) {  // whole warps
      const int r = e == thread ? first_r : e / g.units, u = e == thread ? first_u : e % g.units;
      const bool owns = r < rows && first_unit + u < a.H;
      save();
      kept = -1;
      out = to_storage<T>(0.0f);
      if (owns) {
        cell::Gates<float> sum = {bias[u], bias[g.units + u], bias[2 * g.units + u],
                                  bias[3 * g.units + u]};
        const auto add = [&](const cell::Gates<float>& more) {
          sum.i += more.i, sum.f += more.f, sum.g += more.g, sum.o += more.o;
        };
        if (layer == 0) add(e == thread ? ahead : load_pre(row_of_pre(step, r), u));
        for (int p = 0; p < g.parts; ++p) add(sums_now[(p * g.tile + r) * pitch + u].of);
        gate = cell::activate(sum);
        out = to_storage<T>(cell::forward(gate, c[e]));
        kept = e;
      }
      if (kCluster) {
        // kLane lanes have as many units of a row, and share the blocks that they go to.
        const Words side = of_neighbours(operand(out), lane);
        float values[4];
        memcpy(values, side.word, sizeof values);
        const int unit = first_unit + u / kLane<T> * kLane<T>;
        T* const place = h + r * g.stride + unit;
        const auto hand_to = [&](int to, unsigned into, T* from) {
          for (int b = lane % kLane<T>; r < rows && unit < a.H && b < size; b += kLane<T>)
            send_to(reinterpret_cast<float*>(from + (into ? state : 0)), &box->full[into],
                    to * g.size + b, values);
        };
        if (!last) hand_to(layer, slot ^ 1, place);
        if (layer + 1 < g.layers) {
          if (step >= 2) wait_for(&box->read[slot], phase - 1);
          hand_to(layer + 1, slot, place + columns);
        }
      } else if (r < rows && first_unit + u < sent) {
        static_cast<T*>(a.exchange)[((tick % 2 * g.layers + layer) * a.B + first_row + r) * sent +
                                    first_unit + u] = operand(out);
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
    const T* from = static_cast<const T*>(a.exchange) +
                    ((tick % 2 * g.layers + layer) * a.B + first_row) * sent;
    const int vectors = sent / kLane<T> * (layer ? 2 : 1);
#pragma unroll 4
    for (int e = thread; e < rows * vectors; e += threads) {
      const int r = e / vectors, k = e % vectors * kLane<T>;
      const int below = k >= sent;  // which was a step ahead
      const int made = step + below;
      if (made < 0 || made >= steps) continue;
      *reinterpret_cast<Words*>(h + r * g.stride + k - below * (sent - columns)) =
          *reinterpret_cast<const Words*>(from + (r - below * a.B) * sent + k - below * sent);
    }
    __syncthreads();
  }
}

}  // namespace

int launch_lstm_tensor_forward(DType dtype, const SequencePlan& plan, const SequenceForward& args,
                               void* stream) {
  if (args.steps > (1 << 30)) return cudaErrorInvalidValue;  // the kernel counts in 32 bits
  const TensorGroup group = {group_of(plan), plan.parts};
  return dispatch(dtype, [&](auto type) -> int {
    using T = typename decltype(type)::type;
    if constexpr (sizeof(T) == 8) {
      return cudaErrorInvalidValue;
    } else {
      const bool cluster = plan.kernel == SequenceKernel::kCluster;
      if (plan.held)
        return launch_group(cluster ? tensor_forward_kernel<T, kHeldProducts, true>
                                    : tensor_forward_kernel<T, kHeldProducts, false>,
                            plan, args, group, stream);
      return launch_group(
          cluster ? tensor_forward_kernel<T, 0, true> : tensor_forward_kernel<T, 0, false>, plan,
          args, group, stream);
    }
  });
}

}  // namespace cuda
}  // namespace charlm
