// The draw of an id from a row of logits by a team of threads, a warp or a whole block.
//
//   x = (z - max z) / temperature;  w = exp(x) where the filters keep x, else 0
//   id = the first k with w[0] + ... + w[k] > u * sum(w);  logprob = x[id] - log(sum(w))
//
// All in double, u from common/philox.h. Subtraction and division round as on the CPU, so x and
// every comparison with a filter's bound is the CPU's to the last bit; exp and the order of the
// sums differ, by some 1e-16 of the whole. All orders are fixed: equal calls draw equal bits.
//
// Tiling: the threads stride through the row for its maximum and its sum, then look for the draw
// in ever smaller parts of it: each warp sums a part, the part that holds the target is split
// again, and the last 32 to 1024 weights are scanned a warp's width at a time. Filters that rank
// take no sort: floats order as their bits do, so the largest key at or above which enough is
// kept is found two bits at a time, each pass summing the row against three candidates. Bound by
// the exponential in double, 60 instructions a logit and pass, and at one row by latency.
#pragma once

#include "../common/cell.h"
#include "../common/philox.h"
#include "../common/sampling.h"
#include "reduce.cuh"

namespace charlm {
namespace cuda {

// Rows up to this length are drawn by a warp each.
constexpr i64 kWarpRow = 1024;

// Threads that draw together: 32, or a whole block with `slots` values shared by its warps.
struct Team {
  int rank, threads;
  double* slots;  // kSlots a warp

  static constexpr int kSlots = 3;
  __device__ __forceinline__ int warps() const { return threads / kWarp; }
};

// N values at once over all threads, in a fixed order; every thread gets the results.
template <int N, class Op>
__device__ __forceinline__ void reduce(const Team& team, double (&x)[N], const Op& op) {
#pragma unroll
  for (int j = 0; j < N; ++j) x[j] = reduce_warp(x[j], op);
  if (team.threads == kWarp) return;
  __syncthreads();
  if (team.rank % kWarp == 0)
    for (int j = 0; j < N; ++j) team.slots[team.rank / kWarp * N + j] = x[j];
  __syncthreads();
#pragma unroll
  for (int j = 0; j < N; ++j) {
    x[j] = team.slots[j];
    for (int w = 1; w < team.warps(); ++w) x[j] = op(x[j], team.slots[w * N + j]);
  }
}

template <class Op>
__device__ __forceinline__ double reduce(const Team& team, double x, const Op& op) {
  double values[1] = {x};
  reduce(team, values, op);
  return values[0];
}

// Unsigned integers in the order of the floats. Of 16-bit logits the low bits are all alike.
__device__ __forceinline__ unsigned ordered(float z) {
  const unsigned bits = __float_as_uint(z);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ unsigned long long ordered(double z) {
  const auto bits = static_cast<unsigned long long>(__double_as_longlong(z));
  return bits >> 63 ? ~bits : bits | 1ull << 63;
}

template <class T>
struct LowBits {
  static constexpr int value = 0;
};
template <>
struct LowBits<__nv_bfloat16> {
  static constexpr int value = 16;
};
template <>
struct LowBits<__half> {
  static constexpr int value = 12;  // of 13, as keys grow by two bits
};

template <class T>
struct LogitRow {
  const T* z;
  i64 V;
  double top, temperature;

  __device__ __forceinline__ Compute<T> at(i64 k) const { return static_cast<Compute<T>>(z[k]); }
  __device__ __forceinline__ double x(i64 k) const {
    return (static_cast<double>(at(k)) - top) / temperature;
  }
  __device__ __forceinline__ double weight(i64 k, double floor) const {
    const double scaled = x(k);
    return scaled >= floor ? cell::exponential(scaled) : 0.0;
  }
};

// The least x of at least `floor` among the largest logits whose measures reach the target.
template <class T, class Measure>
__device__ __forceinline__ double bound_of(const Team& team, const LogitRow<T>& row, double floor,
                                           double target, const Measure& measure) {
  using Key = decltype(ordered(Compute<T>()));
  Key found = 0;
  for (int shift = 8 * sizeof(Key) - 2; shift >= LowBits<T>::value; shift -= 2) {
    double reached[3] = {};
    for (i64 k = team.rank; k < row.V; k += team.threads) {
      const Key key = ordered(row.at(k));
      const double m = measure(k);
#pragma unroll
      for (int j = 0; j < 3; ++j)
        if (key >= (found | static_cast<Key>(j + 1) << shift)) reached[j] += m;
    }
    reduce(team, reached, Plus());
    const Key digit = reached[2] >= target ? 3 : reached[1] >= target ? 2 : reached[0] >= target;
    found |= digit << shift;
  }
  double least = INFINITY;
  for (i64 k = team.rank; k < row.V; k += team.threads) {
    const double x = row.x(k);
    if (ordered(row.at(k)) >= found && x >= floor && x < least) least = x;
  }
  least = reduce(team, least, Least());
  return least > floor ? least : floor;
}

// The least x that top_k, then top_p keep. `cache` holds V weights, or is null: then every pass
// computes them anew.
template <class T>
__device__ __forceinline__ double rank_floor(const Team& team, const LogitRow<T>& row,
                                             const Sampling& s, double* cache) {
  // -infinity and what underflows count for top_k, and weigh nothing for top_p.
  double floor = kUnderflow;
  if (s.top_k > 0 && s.top_k < row.V)
    floor = bound_of(team, row, floor, static_cast<double>(s.top_k), [](i64) { return 1.0; });
  if (s.top_p >= 1) return floor;
  double total = 0;
  for (i64 k = team.rank; k < row.V; k += team.threads) {
    const double w = row.weight(k, floor);
    if (cache) cache[k] = w;  // read by this thread alone
    total += w;
  }
  total = reduce(team, total, Plus());
  return bound_of(team, row, floor, s.top_p * total,
                  [&](i64 k) { return cache ? cache[k] : row.weight(k, floor); });
}

// Where in the row to scan for the target, and the weight before it.
struct Part {
  i64 first, end;
  double before, target, total;
};

template <class T>
__device__ __forceinline__ Part narrow(const Team& team, const LogitRow<T>& row, double u,
                                       double floor) {
  Part part = {0, row.V, 0, 0, -1};
  const int warps = team.warps(), warp = team.rank / kWarp, lane = team.rank % kWarp;
  do {
    const i64 count = part.end - part.first;
    const i64 each = ((count + warps - 1) / warps + kWarp - 1) / kWarp * kWarp;
    const i64 begin = part.first + warp * each;
    const i64 end = begin + each < part.end ? begin + each : part.end;
    double sum = 0;
    for (i64 k = begin + lane; k < end; k += kWarp) sum += row.weight(k, floor);
    sum = reduce_warp(sum, Plus());
    if (warps == 1) {
      part.total = sum;
      part.target = u * sum;
      return part;
    }
    __syncthreads();
    if (lane == 0) team.slots[warp] = sum;
    __syncthreads();
    if (part.total < 0) {
      part.total = 0;
      for (int w = 0; w < warps; ++w) part.total += team.slots[w];
      part.target = u * part.total;
    }
    // Rounding may leave no partial sum above the target: then the last part of any weight.
    int here = 0;
    double before = part.before;
    for (int w = 0; w < warps; ++w) {
      const double found = team.slots[w];
      if (found > 0) {
        here = w;
        part.before = before;
        if (before + found > part.target) break;
      }
      before += found;
    }
    part.first += here * each;
    if (part.first + each < part.end) part.end = part.first + each;
  } while (part.end - part.first > 2 * kWarp);
  return part;
}

// Every thread of the team gets the draw (seed, offset, place) of the row z.
template <class T>
__device__ __forceinline__ Draw draw_row(const Team& team, const T* z, i64 V, double temperature,
                                         const Sampling& s, i64 offset, i64 place, double* cache) {
  LogitRow<T> row = {z, V, -INFINITY, temperature};
  for (i64 k = team.rank; k < V; k += team.threads) {
    const double logit = static_cast<double>(row.at(k));
    row.top = logit != logit ? INFINITY : logit > row.top ? logit : row.top;
  }
  row.top = reduce(team, row.top, Max());
  if (row.top == INFINITY) return {kNotFinite, 0};
  if (row.top == -INFINITY) return {kAllMinusInfinity, 0};

  // At temperature 0 only the maxima keep weight, and any of it exceeds a negative target, so
  // that the first of them is drawn.
  const bool cold = temperature == 0;
  double u = -1, floor = 0;
  if (cold) {
    row.temperature = 1;
  } else {
    u = philox_uniform(static_cast<unsigned long long>(s.seed),
                       static_cast<unsigned long long>(offset),
                       static_cast<unsigned long long>(place));
    floor = s.floor;
    if (s.ranks(V)) {
      const double ranked = rank_floor(team, row, s, cache);
      floor = ranked > floor ? ranked : floor;
    }
  }
  Part part = narrow(team, row, u, floor);

  // The warps of a block scan the same part: nobody waits for another's result.
  const int lane = team.rank % kWarp;
  i64 id = part.first;
  for (i64 first = part.first; first < part.end; first += kWarp) {
    const i64 k = first + lane;
    const double w = k < part.end ? row.weight(k, floor) : 0.0;
    double running = w;
#pragma unroll
    for (int step = 1; step < kWarp; step *= 2) {
      const double below = __shfl_up_sync(kAllLanes, running, step);
      if (lane >= step) running += below;
    }
    const unsigned hits = __ballot_sync(kAllLanes, w > 0 && part.before + running > part.target);
    const unsigned some = __ballot_sync(kAllLanes, w > 0);
    if (some) id = first + (hits ? __ffs(hits) - 1 : 31 - __clz(some));
    if (hits) break;
    part.before += __shfl_sync(kAllLanes, running, kWarp - 1);
  }
  return {id, cold ? 0.0 : row.x(id) - log(part.total)};
}

}  // namespace cuda
}  // namespace charlm
