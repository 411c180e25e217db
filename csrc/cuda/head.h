// Cross-entropy kernels as raw pointers and sizes; see kernels.h for T and C.
#pragma once

#include "kernels.h"

namespace charlm {
namespace cuda {

struct CrossEntropy {
  i64 rows, V;
  const void* logits;  // C (rows, V), without the bias
  const void* bias;    // T (V) or null
  const i64* targets;  // (rows)
  void* loss;          // C (rows)
  void* gradient;      // T (rows, V) of the summed loss, or null; may be the logits if T is C
};

int launch_cross_entropy(DType dtype, const CrossEntropy& args, void* stream);

// Sums of n rows T (n, columns) into out C (columns), on top of what is there if `add`; partial C
// (column_sum_parts(n), columns) is scratch.
inline i64 column_sum_parts(i64 n) { return n <= 128 ? 1 : n < 128 * 256 ? (n + 127) / 128 : 256; }
int launch_column_sums(DType dtype, const void* rows, i64 n, i64 columns, void* partial, void* out,
                       bool add, void* stream);

// out T: the sum of losses C (n).
int launch_total(DType dtype, const void* losses, i64 n, void* out, void* stream);

}  // namespace cuda
}  // namespace charlm
