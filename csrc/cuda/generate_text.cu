// Whole texts in one launch: embed -> all layers -> head -> draw -> the next embedding.
//
// A group of blocks (text_plan.h) runs a tile of the batch's rows from their prompts' first ids
// to the last characters. Each block owns some units of every layer and some classes of the head;
// what it computes goes to the others through global memory, that is L2, with a barrier of the
// group after each layer and after the head. Every block then draws all ids of its tile itself,
// the same bits in each, which saves the barrier that handing them on would take. Products as in
// lstm_sequence_forward.cu: a team of 8 lanes takes one unit's four gates, or four classes, for 8
// rows or one. Prompts end together: a row with a shorter one joins late and keeps its state
// until then.
//
// Bound at few rows by L + 1 hand-overs a character, some 0.5 us each in a cluster, and by the
// weights: the default model's 819 KB (float32) over 16 blocks are 400 cycles from shared memory,
// where one block that streams them from L2 takes 12,800. At thousands of rows blocks work alone,
// 32 rows share a stream, and multiply-adds bind it.
#include "draw.cuh"
#include "sampling.h"
#include "team.cuh"
#include "together.cuh"

namespace charlm {
namespace cuda {
namespace {

// The part of a plan that the kernel reads.
struct Blocks {
  Wait wait;
  int size, tile, units, classes, columns, resident, drawers;
  bool cache;
};

// Also makes visible to the group what its blocks wrote before.
__device__ __forceinline__ void hand_over(Wait wait) {
  if (wait == Wait::kBlock)
    __syncthreads();
  else if (wait == Wait::kCluster)
    cluster_sync();
  else
    grid_sync();
}

__device__ __forceinline__ int padded_to_4(i64 columns) {
  return static_cast<int>((columns + 3) / 4 * 4);
}

// Weights of a layer or of the head as this block reads them, in shared or global memory.
template <class T>
struct Weights {
  const T* first;  // of the block
  i64 row, four;   // elements between units or classes, and between what a team takes at once
};

template <class T>
struct Block {
  using C = Compute<T>;
  const GenerateText& a;
  const Blocks& p;
  int rank, thread, threads;
  i64 first_row, first_unit, first_class;
  C* inputs;         // (tile, columns)
  double* slots;     // of a team
  i64 *ids, *joins;  // (tile): the id that a row reads next or its mark, and its first step
  double* caches;
  T* resident;

  __device__ __forceinline__ Block(const GenerateText& args, const Blocks& plan)
      : a(args),
        p(plan),
        rank(blockIdx.x % plan.size),
        thread(threadIdx.y * 32 + threadIdx.x),
        threads(blockDim.y * 32),
        first_row(static_cast<i64>(blockIdx.x / plan.size) * plan.tile),
        first_unit(static_cast<i64>(rank) * plan.units),
        first_class(static_cast<i64>(rank) * plan.classes) {
    inputs = reinterpret_cast<C*>(dynamic_shared());
    slots = reinterpret_cast<double*>(inputs + p.tile * p.columns);
    ids = reinterpret_cast<i64*>(slots + 16 * Team::kSlots);
    joins = ids + p.tile;
    caches = reinterpret_cast<double*>(joins + p.tile);
    double* end = caches + (p.cache ? (p.drawers ? p.drawers : 1) * a.V : 0);
    // To 16 bytes, as the plan counts.
    end += (end - reinterpret_cast<double*>(inputs)) % 2;
    resident = reinterpret_cast<T*>(end);
  }

  // A row that ended in NaN goes on unread.
  __device__ __forceinline__ i64 id(int r) const { return ids[r] < 0 ? 0 : ids[r]; }

  __device__ __forceinline__ int columns_of(i64 l) const {
    return padded_to_4(l ? a.H : a.table ? 0 : a.E) + padded_to_4(a.H);
  }

  // The weights of layer l, or of the head after the last; loads them if `fill` and they fit.
  __device__ __forceinline__ Weights<T> weights_of(i64 wanted, bool fill) const {
    constexpr int kPad = (sizeof(T) == 2 ? kNarrowRowPad : kRowPad) / sizeof(T);
    const T* from = static_cast<const T*>(a.weights);
    T* to = resident;
    for (i64 l = 0;; ++l) {
      const bool head = l == a.L, kept = l < p.resident;
      const i64 columns = head ? padded_to_4(a.H) : columns_of(l), stride = columns + kPad;
      if (l < wanted) {
        from += 4 * a.H * columns;
        if (kept) to += (head ? p.classes : 4 * p.units) * stride;
        continue;
      }
      if (!kept)
        return head ? Weights<T>{from, columns, columns}
                    : Weights<T>{from + first_unit * columns, columns, a.H * columns};
      const i64 classes = padded_to_4(a.V);
      for (i64 j = threadIdx.y; fill && j < (head ? p.classes : 4 * p.units); j += blockDim.y) {
        const i64 unit = first_unit + j % p.units, row = j / p.units * a.H + unit;
        const bool inside = head ? first_class + j < classes : unit < a.H;
        const T* source = from + (head ? first_class + j : row) * columns;
        for (i64 k = 4 * threadIdx.x; k < columns; k += 4 * kWarp) {
          constexpr int kPart = sizeof(T) == 8 ? 2 : 4;  // rows are 16 bytes aligned, not 32
#pragma unroll
          for (int part = 0; part < 4; part += kPart) {
            Pack<T, kPart> pack;
            for (int i = 0; i < kPart; ++i) pack.value[i] = to_storage<T>(C(0));
            if (inside) pack = *reinterpret_cast<const Pack<T, kPart>*>(source + k + part);
            *reinterpret_cast<Pack<T, kPart>*>(to + j * stride + k + part) = pack;
          }
        }
      }
      return head ? Weights<T>{to, stride, stride} : Weights<T>{to, stride, p.units * stride};
    }
  }

  __device__ __forceinline__ C* state(i64 step, i64 l) const {
    return static_cast<C*>(a.hidden) + (step % 2 * a.L + l) * a.B * a.H;
  }

  // Rows of `from`, or with ids rows ids[r], to the inputs from column `at` on.
  template <class S>
  __device__ __forceinline__ void read(const S* from, i64 width, int at, bool by_id) const {
    const int columns = padded_to_4(width);
    for (int e = thread; e < p.tile * columns; e += threads) {
      const int r = e / columns, k = e % columns;
      const i64 row = by_id ? id(r) : first_row + r;
      const bool inside = first_row + r < a.B && k < width;
      inputs[r * p.columns + at + k] = inside ? static_cast<C>(from[row * width + k]) : C(0);
    }
  }
};

template <class T, int kRows>
__device__ __forceinline__ void run_layer(const Block<T>& b, i64 l, i64 step) {
  using C = Compute<T>;
  const GenerateText& a = b.a;
  const Blocks& p = b.p;
  const i64 H = a.H;
  int below = 0;
  if (l) {
    b.read(b.state(step + 1, l - 1), H, 0, false);
    below = padded_to_4(H);
  } else if (!a.table) {
    b.read(static_cast<const T*>(a.embedding), a.E, 0, true);
    below = padded_to_4(a.E);
  }
  b.read(b.state(step, l), H, below, false);
  const Weights<T> weights = b.weights_of(l, false);
  const int columns = b.columns_of(l);
  C* const next = b.state(step + 1, l);
  C* const cells = static_cast<C*>(a.cells) + l * a.B * H;
  const T* const bias = a.bias ? static_cast<const T*>(a.bias) + l * 4 * H : nullptr;
  __syncthreads();

  const int lane = threadIdx.x % kTeam, team = b.thread / kTeam, teams = b.threads / kTeam;
  const int items = p.units * (p.tile / kRows);
  // Whole warps stay together: the sum over lanes needs all of them.
  for (int base = 0; base < items; base += teams) {
    if (base + (team & ~3) >= items) break;
    const int item = base + team < items ? base + team : items - 1;
    const int first = item / p.units * kRows, r = first + (kRows == 1 ? 0 : lane);
    const i64 row = b.first_row + r, unit = b.first_unit + item % p.units;
    const bool owns = base + team < items && row < a.B && unit < H && (kRows > 1 || lane == 0);
    C pre[4] = {}, c = 0;
    if (owns) {
      c = cells[row * H + unit];
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        if (bias) pre[q] = static_cast<C>(bias[q * H + unit]);
        if (l == 0 && a.table)
          pre[q] += static_cast<const C*>(a.table)[(b.id(r) * 4 + q) * H + unit];
      }
    }
    C sum[4][kRows] = {};
    // Beyond the last unit any weights do: nobody owns the result.
    if (b.first_unit < H)
      team_products<kRows>(weights.first + (unit < H ? item % p.units : 0) * weights.row,
                           weights.four, b.inputs + first * p.columns, p.columns, columns, lane,
                           sum);
    team_sum<kRows>(sum, lane);
    if (!owns) continue;
    if (step < b.joins[r]) {
      next[row * H + unit] = b.state(step, l)[row * H + unit];
      continue;
    }
    const auto gate = cell::activate(cell::Gates<C>{sum[0][0] + pre[0], sum[1][0] + pre[1],
                                                    sum[2][0] + pre[2], sum[3][0] + pre[3]});
    next[row * H + unit] = static_cast<C>(to_storage<T>(cell::forward(gate, c)));
    cells[row * H + unit] = c;
  }
  hand_over(p.wait);
}

template <class T, int kRows>
__device__ __forceinline__ void run_head(const Block<T>& b, i64 step) {
  using C = Compute<T>;
  const GenerateText& a = b.a;
  const Blocks& p = b.p;
  b.read(b.state(step + 1, a.L - 1), a.H, 0, false);
  const Weights<T> weights = b.weights_of(a.L, false);
  const bool kept = p.resident > a.L;
  C* const logits = static_cast<C*>(a.logits);
  __syncthreads();
  const int lane = threadIdx.x % kTeam, team = b.thread / kTeam, teams = b.threads / kTeam;
  const i64 left = padded_to_4(a.V) - b.first_class;
  const int fours = static_cast<int>((left < p.classes ? left : p.classes) / 4);
  const int items = fours * (p.tile / kRows);
  for (int base = 0; base < items; base += teams) {
    if (base + (team & ~3) >= items) break;
    const int item = base + team < items ? base + team : items - 1;
    const i64 v = item % fours * 4;
    const int first = item / fours * kRows, r = first + (kRows == 1 ? 0 : lane);
    const i64 row = b.first_row + r, at = b.first_class + v;
    C sum[4][kRows] = {};
    team_products<kRows>(weights.first + (kept ? v : at) * weights.row, weights.four,
                         b.inputs + first * p.columns, p.columns, padded_to_4(a.H), lane, sum);
    team_sum<kRows>(sum, lane);
    if (base + team >= items || row >= a.B || (kRows == 1 && lane)) continue;
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      if (at + q >= a.V) continue;
      const C bias =
          a.head_bias ? static_cast<C>(static_cast<const T*>(a.head_bias)[at + q]) : C(0);
      logits[row * a.V + at + q] = sum[q][0] + bias;
    }
  }
  hand_over(p.wait);
}

// Character t of the rows of the tile; what ended in NaN keeps its mark.
template <class T>
__device__ __forceinline__ void run_draws(const Block<T>& b, i64 t) {
  using C = Compute<T>;
  const GenerateText& a = b.a;
  const Blocks& p = b.p;
  const bool alone = p.drawers > 0;  // a warp a row
  const Team team = {alone ? static_cast<int>(threadIdx.x) : b.thread, alone ? kWarp : b.threads,
                     b.slots};
  if (!alone || static_cast<int>(threadIdx.y) < p.drawers)
    for (int r = alone ? threadIdx.y : 0; r < p.tile; r += alone ? p.drawers : 1) {
      const i64 row = b.first_row + r;
      if (row >= a.B) break;
      double* cache = p.cache ? b.caches + (alone ? threadIdx.y * a.V : 0) : nullptr;
      const i64 before = t ? b.ids[r] : 0;
      Draw found = {before, 0};
      if (before >= 0)
        found = draw_row(team, static_cast<const C*>(a.logits) + row * a.V, a.V, a.temperature[row],
                         a.sampling, a.sampling.offset + t, row, cache);
      if (alone) __syncwarp();  // all lanes have read the id; several warps meet in draw_row
      if (team.rank) continue;
      if (before >= 0) b.ids[r] = found.id;
      if (b.rank) continue;
      a.ids[t * a.B + row] = found.id;
      static_cast<C*>(a.logprobs)[t * a.B + row] = static_cast<C>(found.logprob);
    }
  __syncthreads();
}

template <class T, int kRows>
__global__ void __launch_bounds__(sizeof(T) == 8 ? 256 : 512, 1)
    generate_kernel(GenerateText a, Blocks p) {
  const Block<T> b(a, p);
  for (i64 l = 0; l < p.resident; ++l) b.weights_of(l, true);
  for (int r = b.thread; r < p.tile; r += b.threads) {
    const i64 row = b.first_row + r;
    b.joins[r] = row < a.B ? a.prompt_steps - a.lengths[row] : 0;
    b.ids[r] = 0;
  }
  __syncthreads();
  const i64 steps = a.prompt_steps - 1 + a.length;
  for (i64 step = 0; step < steps; ++step) {
    if (step < a.prompt_steps) {
      for (int r = b.thread; r < p.tile; r += b.threads) {
        const i64 row = b.first_row + r, own = step - b.joins[r];
        if (row < a.B && own >= 0) b.ids[r] = a.prompts[own * a.B + row];
      }
      __syncthreads();
    }
    for (i64 l = 0; l < a.L; ++l) run_layer<T, kRows>(b, l, step);
    if (step < a.prompt_steps - 1) continue;
    run_head<T, kRows>(b, step);
    run_draws(b, step - (a.prompt_steps - 1));
  }
}

}  // namespace

int launch_generate(DType dtype, const TextPlan& plan, const GenerateText& args, void* stream) {
  const Blocks blocks = {plan.wait,    plan.size,     plan.tile,    plan.units, plan.classes,
                         plan.columns, plan.resident, plan.drawers, plan.cache};
  const Together together = {plan.wait == Wait::kCluster ? plan.size : 1, plan.wait == Wait::kGrid};
  return dispatch(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto kernel = plan.rows == 1 ? generate_kernel<T, 1> : generate_kernel<T, kTeam>;
    return launch_together(kernel, together, static_cast<i64>(plan.size) * plan.groups,
                           plan.threads, plan.shared_memory, stream, args, blocks);
  });
}

}  // namespace cuda
}  // namespace charlm
