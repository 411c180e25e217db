// Sampling driver: rows over torch's threads, and the scalar parts of a draw.
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <limits>

#include "common/philox.h"
#include "cpu/isa/isa.h"
#include "cpu/memory/tensors.h"
#include "cpu/memory/workspace.h"
#include "cpu/text/args.h"
#include "cpu/text/generation.h"

namespace charlm {

double draw_uniform(i64 seed, i64 offset, i64 row) { return philox_uniform(seed, offset, row); }

// top_k keeps what is as likely as the k-th likeliest; top_p, of those, keeps an entry while
// the strictly likelier ones together weigh less than top_p of all. Both keep or drop ties
// together, so a bound on x says it all. Quickselect, with the weights of the halves passed
// over added up: linear time, no sort.
double rank_floor(const double* x, const double* weight, i64 n, const Sampling& s, Candidate* c) {
  const auto likelier = [](const Candidate& a, const Candidate& b) { return a.x > b.x; };
  for (i64 k = 0; k < n; ++k) c[k] = {x[k], weight[k]};
  Candidate* end = c + n;
  double floor = -std::numeric_limits<double>::infinity();
  if (s.top_k > 0 && s.top_k < n) {
    std::nth_element(c, c + s.top_k - 1, end, likelier);
    floor = c[s.top_k - 1].x;
    end = std::partition(c + s.top_k, end, [&](const Candidate& a) { return a.x == floor; });
  }
  if (s.top_p >= 1) return floor;
  double total = 0;
  for (const Candidate* a = c; a != end; ++a) total += a->weight;
  // Entries before c are strictly likelier or tied, and together weigh `above`.
  const double target = s.top_p * total;
  double above = 0;
  floor = 0;  // x of the likeliest, which is always kept
  while (c != end) {
    Candidate* middle = c + (end - c) / 2;
    std::nth_element(c, middle, end, likelier);
    double half = above;
    for (const Candidate* a = c; a != middle; ++a) half += a->weight;
    if (half < target) {
      floor = middle->x;
      above = half + middle->weight;
      c = middle + 1;
    } else {
      end = middle;
    }
  }
  return floor;
}

namespace {

template <class T>
std::tuple<Tensor, Tensor> sample_rows(const Tensor& logits, const Tensor& temperature,
                                       const Sampling& s) {
  const int64_t N = logits.size(0), V = logits.size(1);
  const Kernels<T>& k = kernels<T>();
  Tensor ids = torch::stable::new_empty(logits, {N}, torch::headeronly::ScalarType::Long);
  Tensor logprobs = make_empty(logits, {N});
  const T* z = logits.const_data_ptr<T>();
  const double* t = temperature.const_data_ptr<double>();
  i64* id = reinterpret_cast<i64*>(ids.mutable_data_ptr<int64_t>());
  T* logprob = logprobs.mutable_data_ptr<T>();
  constexpr int64_t kWorthThreads = 1 << 14;  // logits
  const int64_t most = std::max<int64_t>(1, torch::stable::get_num_threads());
  const int64_t parts =
      std::clamp<int64_t>(N * V / kWorthThreads, 1, std::max<int64_t>(1, std::min(N, most)));
  const int64_t each = draw_scratch(V, s);
  const Buffer<double> scratch = make_buffer<double>(parts * each);
  torch::stable::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part)
      k.sample(z, N * part / parts, N * (part + 1) / parts, V, t, s, scratch.get() + part * each,
               id, logprob);
  });
  return {ids, logprobs};
}

template <class T>
void few_rows(const FewRows& rows, const Sampling& s) {
  const int64_t N = rows.count, padded = padded_row(N), draw = draw_scratch(rows.V, s);
  const Buffer<double> scratch = make_buffer<double>(2 * padded + draw);
  double *temperature = scratch.get(), *logprobs = temperature + padded;
  std::fill_n(temperature, N, rows.temperature);
  kernels<T>().sample(static_cast<const T*>(rows.logits), 0, N, rows.V, temperature, s,
                      logprobs + padded, reinterpret_cast<i64*>(rows.ids),
                      static_cast<T*>(rows.logprobs ? rows.logprobs : logprobs));
}

}  // namespace

int64_t sample_few(const FewRows& rows, Sampling sampling) {
  sampling.floor = std::max(sampling.floor, kUnderflow);
  rows.is_double ? few_rows<double>(rows, sampling) : few_rows<float>(rows, sampling);
  int64_t* end = rows.ids + rows.count;
  return std::find_if(rows.ids, end, [](int64_t id) { return id < 0; }) - rows.ids;
}

std::tuple<Tensor, Tensor> sample(Tensor logits, Tensor temperature, int64_t top_k, double top_p,
                                  double floor, int64_t seed, int64_t offset) {
  const Sampling s = {top_k, top_p, std::max(floor, kUnderflow), seed, offset};
  return logits.scalar_type() == torch::headeronly::ScalarType::Float
             ? sample_rows<float>(logits, temperature, s)
             : sample_rows<double>(logits, temperature, s);
}

}  // namespace charlm
