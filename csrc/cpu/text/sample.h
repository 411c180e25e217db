// Draws one id from a row of logits, and its log-probability.
//
//   x = (z - max z) / temperature;  w = exp(x) where x >= floor, else 0
//   id = the first k with w[0] + ... + w[k] > u * sum(w);  logprob = x[id] - log(sum(w))
//
// All in double, in the order of the definition. The row is read once for its maximum and once
// for the sums of its blocks; the block that holds the draw is weighed again when the row has
// several, so that no array of V weights is written. Filters that rank (top_k, top_p) write x
// and w once and select their threshold in linear time. A small row is bound by the exponential,
// a large one by memory.
#pragma once

#if defined(__FAST_MATH__)
#error "the sampler needs NaN, infinity and the order of its sums"
#endif

#include "cpu/isa/activations.h"
#include "cpu/text/args.h"

namespace charlm {
namespace CHARLM_ISA {

CHARLM_INLINE Vec<double> load_doubles(const double* p) { return load(p); }

CHARLM_INLINE Vec<double> load_doubles(const float* p) {
  typedef float Half __attribute__((vector_size(CHARLM_VECTOR_BYTES / 2), aligned(4), may_alias));
  return __builtin_convertvector(*reinterpret_cast<const Half*>(p), Vec<double>);
}

// w[k] and, unless null, x[k] for n logits; both arrays take whole vectors. Returns the sum.
// NaN among the logits makes it NaN.
template <class T>
CHARLM_INLINE double weigh(const T* z, i64 n, double top, double temperature, double floor,
                           double* w, double* x) {
  constexpr int L = kLanes<double>;
  Vec<double> sums = {};
  for (i64 k = 0; k < n; k += L) {
    Vec<double> logits;
    if (k + L <= n) {
      logits = load_doubles(z + k);
    } else {
      double rest[L];
      for (int j = 0; j < L; ++j) rest[j] = k + j < n ? z[k + j] : -__builtin_inf();
      logits = load(rest);
    }
    const Vec<double> scaled = (logits - top) / temperature;
    const Vec<double> e = scaled < floor ? Vec<double>{} : exp<double>(scaled);
    store(w + k, e);
    if (x) store(x + k, scaled);
    sums += e;
  }
  double sum = 0;
  for (int j = 0; j < L; ++j) sum += sums[j];
  return sum;
}

// NaN is passed over; -infinity when nothing else is there.
template <class T>
CHARLM_INLINE T largest(const T* z, i64 n) {
  constexpr int L = kLanes<T>;
  T top = -__builtin_inf();
  i64 k = 0;
  if (n >= L) {
    Vec<T> tops = splat(top);
    for (; k + L <= n; k += L) {
      const Vec<T> v = load(z + k);
      tops = v > tops ? v : tops;
    }
    for (int j = 0; j < L; ++j) top = tops[j] > top ? tops[j] : top;
  }
  for (; k < n; ++k) top = z[k] > top ? z[k] : top;
  return top;
}

// Temperature 0: the first maximum, with certainty.
template <class T>
CHARLM_INLINE Draw draw_largest(const T* z, i64 V, T top) {
  i64 id = -1;
  for (i64 k = V - 1; k >= 0; --k) {
    if (z[k] != z[k]) return {kNotFinite, 0};
    if (z[k] == top) id = k;
  }
  return {id, 0};
}

template <class T>
Draw draw_row(const T* z, i64 V, double temperature, const Sampling& s, i64 offset, i64 row,
              double* scratch) {
  const T largest_logit = largest(z, V);
  const double top = largest_logit;
  if (top == __builtin_inf()) return {kNotFinite, 0};
  if (top == -__builtin_inf()) {
    for (i64 k = 0; k < V; ++k)
      if (z[k] != z[k]) return {kNotFinite, 0};
    return {kAllMinusInfinity, 0};
  }
  if (temperature == 0) return draw_largest(z, V, largest_logit);

  const i64 blocks = (V + kSampleBlock - 1) / kSampleBlock;
  double *w = scratch, *sums = w + kSampleBlock;
  double floor = s.floor;
  if (s.ranks(V)) {
    double *x = sums + padded_row(blocks), *all = x + padded_row(V);
    const double sum = weigh(z, V, top, temperature, kUnderflow, all, x);
    if (sum != sum) return {kNotFinite, 0};
    Candidate* candidates = reinterpret_cast<Candidate*>(all + padded_row(V));
    const double ranked = rank_floor(x, all, V, s, candidates);
    floor = ranked > floor ? ranked : floor;
  }

  const auto block = [&](i64 b) __attribute__((always_inline)) {
    const i64 first = b * kSampleBlock;
    return weigh(z + first, V - first < kSampleBlock ? V - first : kSampleBlock, top, temperature,
                 floor, w, nullptr);
  };
  double total = 0;
  for (i64 b = 0; b < blocks; ++b) total += sums[b] = block(b);
  if (total != total) return {kNotFinite, 0};

  // Rounding may leave no partial sum above the target: then the last id of any weight.
  const double target = draw_uniform(s.seed, offset, row) * total;
  double before = 0;
  i64 here = 0;
  for (i64 b = 0; b < blocks; ++b) {
    if (sums[b] > 0) here = b;
    if (before + sums[b] > target) break;
    before += sums[b];
  }
  if (blocks > 1) block(here);
  const i64 first = here * kSampleBlock;
  const i64 count = V - first < kSampleBlock ? V - first : kSampleBlock;
  i64 id = first;
  for (i64 k = 0; k < count; ++k) {
    if (w[k] > 0) id = first + k;
    before += w[k];
    if (before > target) break;
  }
  return {id, (static_cast<double>(z[id]) - top) / temperature - scalar_log(total)};
}

template <class T>
void sample_rows(const T* logits, i64 begin, i64 end, i64 V, const double* temperature,
                 const Sampling& s, double* scratch, i64* ids, T* logprobs) {
  for (i64 r = begin; r < end; ++r) {
    const Draw draw = draw_row(logits + r * V, V, temperature[r], s, s.offset, r, scratch);
    ids[r] = draw.id;
    logprobs[r] = static_cast<T>(draw.logprob);
  }
}

}  // namespace CHARLM_ISA
}  // namespace charlm
