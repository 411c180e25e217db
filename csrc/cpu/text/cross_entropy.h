// Softmax cross-entropy of logit rows and its gradient, in place.
//
//   loss[r] = log(sum exp(z - max)) + max - z[target];  dz = softmax(z) - onehot(target)
//
// A row is read from L1 three times; bound by the exponential.
#pragma once

#include "cpu/isa/activations.h"

namespace charlm {
namespace CHARLM_ISA {

template <class T>
void cross_entropy_rows(T* logits, i64 rows, i64 V, const i64* targets, T* loss, bool gradient) {
  constexpr int L = kLanes<T>;
  for (i64 r = 0; r < rows; ++r, logits += V) {
    T top = logits[0];
    for (i64 k = 1; k < V; ++k) top = logits[k] > top ? logits[k] : top;
    const T target = logits[targets[r]] - top;
    Vec<T> sums = {};
    T sum = 0;
    i64 k = 0;
    for (; k + L <= V; k += L) {
      const Vec<T> e = exp<T>(load(logits + k) - top);
      sums += e;
      if (gradient) store(logits + k, e);
    }
    if (k < V) {
      const int n = static_cast<int>(V - k);
      const Vec<T> e = exp<T>(load_n(logits + k, n) - top);
      for (int j = 0; j < n; ++j) sum += e[j];
      if (gradient) store_n(logits + k, e, n);
    }
    for (int j = 0; j < L; ++j) sum += sums[j];
    loss[r] = scalar_log(sum) - target;
    if (!gradient) continue;
    const T scale = T(1) / sum;
    for (k = 0; k < V; ++k) logits[k] *= scale;
    logits[targets[r]] -= T(1);
  }
}

}  // namespace CHARLM_ISA
}  // namespace charlm
