// Sums of outer products over torch's threads, which own rows of the results: every sum runs in row
// order whatever their number.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/isa/isa.h"
#include "cpu/lstm/args.h"
#include "cpu/memory/workspace.h"
#include "cpu/threads/share.h"

namespace charlm {

// out (M, N) = or += a^T b, for a (K, M) with a_stride from row to row, b (K, N).
template <class T>
OuterProducts<T> outer(const T* a, int64_t a_stride, int64_t K, int64_t M, const T* b, int64_t N,
                       T* out) {
  return {K, M, N, a, a_stride, b, K, nullptr, out, nullptr, false};
}

template <class T>
void run(const std::vector<OuterProducts<T>>& products) {
  const Kernels<T>& k = kernels<T>();
  double work = 0;
  for (const OuterProducts<T>& p : products) work += static_cast<double>(p.K) * p.M * p.N;
  const int64_t parts = work < kWorthThreads ? 1 : torch::stable::get_num_threads();
  const int64_t count = static_cast<int64_t>(products.size());
  // A part of each product for each thread, on borders of register tiles and cache lines alike.
  constexpr int64_t unit = 48;
  torch::stable::parallel_for(
      0, parts * count, parts == 1 ? count : 1, [&](int64_t first, int64_t last) {
        const Buffer<T> scratch = make_buffer<T>(k.outer_scratch);
        for (int64_t job = first; job < last; ++job) {
          const OuterProducts<T>& p = products[job % count];
          const int64_t part = job / count, units = div_up(p.M, unit);
          const int64_t begin = units * part / parts * unit;
          const int64_t end = std::min<int64_t>(units * (part + 1) / parts * unit, p.M);
          if (begin < end) k.outer_products(p, begin, end, scratch.get());
        }
      });
}

}  // namespace charlm
