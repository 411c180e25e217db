// Row operations around the recurrence: gradient of the folded embedding, cross-entropy.
#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "cpu/isa/isa.h"
#include "cpu/memory/running.h"
#include "cpu/text/loss.h"

namespace charlm {
namespace {

// Threads own columns, so every sum runs in row order whatever their number.
template <class S>
Tensor sum_by_id(const Tensor& rows, const Tensor& ids, int64_t segments) {
  const int64_t N = rows.size(0), C = rows.size(1);
  const Running<S> out(make_zeros(rows, {segments, C}));
  const S* from = values<S>(rows);
  const int64_t* id = ids.const_data_ptr<int64_t>();
  Compute<S>* to = out.data();
  check_ids(id, N, segments, "ids");
  torch::stable::parallel_for(0, div_up(C, 16), div_up(65536, 16 * N + 1),
                              [&](int64_t begin, int64_t end) {
                                const int64_t c0 = begin * 16, c1 = std::min(end * 16, C);
                                for (int64_t n = 0; n < N; ++n) {
                                  Compute<S>* target = to + id[n] * C;
                                  for (int64_t c = c0; c < c1; ++c)
                                    target[c] += widen(from[n * C + c]);
                                }
                              });
  return out.result();
}

template <class T>
Tensor cross_entropy_rows(Tensor& logits, const Tensor& targets, bool gradient) {
  const int64_t N = logits.size(0), V = logits.size(1);
  const int64_t* target = targets.const_data_ptr<int64_t>();
  check_ids(target, N, V, "targets");
  Tensor loss = make_empty(logits, {N});
  T* z = logits.mutable_data_ptr<T>();
  T* out = loss.mutable_data_ptr<T>();
  const Kernels<T>& k = kernels<T>();
  torch::stable::parallel_for(0, N, div_up(8192, V), [&](int64_t begin, int64_t end) {
    k.cross_entropy(z + begin * V, end - begin, V, reinterpret_cast<const i64*>(target) + begin,
                    out + begin, gradient);
  });
  return loss;
}

bool is_float(const Tensor& t) { return t.scalar_type() == torch::headeronly::ScalarType::Float; }

}  // namespace

Tensor segment_sum(Tensor rows, Tensor ids, int64_t segments) {
  return with_type_of(rows,
                      [&](auto zero) { return sum_by_id<decltype(zero)>(rows, ids, segments); });
}

Tensor cross_entropy_(Tensor logits, Tensor targets, bool gradient) {
  return is_float(logits) ? cross_entropy_rows<float>(logits, targets, gradient)
                          : cross_entropy_rows<double>(logits, targets, gradient);
}

}  // namespace charlm
