// Linear layer and summed cross-entropy, with their gradients found on the way: in blocks of rows,
// so that large logits never exist whole. The products go to torch's BLAS; of 16-bit inputs the
// logits stay float32 until the gradient is rounded.
#include "head.h"

#include <algorithm>

#include "driver.h"
#include "lstm.h"

namespace charlm {
namespace cuda {
namespace {

// Logits of a block: enough rows to fill the device, in tens of megabytes.
constexpr int64_t kBlockElements = 1 << 24;

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> linear_cross_entropy(Tensor x, Tensor weight,
                                                                std::optional<Tensor> bias,
                                                                Tensor targets, bool save) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  void* stream = stream_for(x);
  const DType dtype = dtype_of(x);
  const ScalarType storage = x.scalar_type(), compute = compute_type(x);
  check_like(x, x, "x");
  check_like(weight, x, "the weight");
  if (bias) check_like(*bias, x, "the bias");
  const int64_t N = x.size(0), H = x.size(1), V = weight.size(0);
  const i64* target = id_pointer(targets, x);
  check(launch_check_ids(target, N, V, true, stream), "check_ids");

  const int64_t each = std::max<int64_t>(16, kBlockElements / std::max<int64_t>(1, V));
  const int64_t block = std::min(N, each);
  const bool whole = block == N, wide = storage == compute;
  const auto empty = [&](int64_t rows, int64_t columns, ScalarType type) {
    return torch::stable::new_empty(x, {rows, columns}, type);
  };
  Tensor dx = save ? empty(N, H, storage) : torch::stable::new_empty(x, {0});
  Tensor dweight = save ? empty(V, H, storage) : torch::stable::new_empty(x, {0});
  Tensor losses = torch::stable::new_empty(x, {N}, compute);
  const Tensor logits = empty(block, V, compute);
  const Tensor gradients = save && !wide ? empty(block, V, storage) : logits;
  // Blocks add up in the compute type: in 16 bits each sum would round.
  Tensor weight_sums = save && !whole ? torch::stable::new_zeros(x, {V, H}, compute) : dweight;
  const Tensor weight_part = save && !whole ? empty(V, H, compute) : dweight;
  Tensor bias_sums = save && bias ? torch::stable::new_zeros(x, {V}, compute)
                                  : torch::stable::new_empty(x, {0}, compute);
  const Tensor bias_parts = empty(save && bias ? column_sum_parts(block) : 0, V, compute);
  const DType compute_dtype = dtype == DType::kDouble ? DType::kDouble : DType::kFloat;

  for (int64_t start = 0; start < N; start += block) {
    const int64_t rows = std::min(block, N - start);
    const Tensor part = rows_of(x, start, rows), z = rows_of(logits, 0, rows);
    product(part, transposed(weight), z);
    CrossEntropy step = {};
    step.rows = rows;
    step.V = V;
    step.logits = pointer(z);
    step.bias = bias ? pointer(*bias) : nullptr;
    step.targets = target + start;
    step.loss = pointer(losses, start);
    const Tensor gradient = rows_of(gradients, 0, rows);
    step.gradient = save ? pointer(gradient) : nullptr;
    check(launch_cross_entropy(dtype, step, stream), "cross_entropy");
    if (!save) continue;
    product(gradient, weight, rows_of(dx, start, rows));
    product(transposed(gradient), part, weight_part);
    if (!whole)
      check(launch_add(compute_dtype, pointer(weight_sums), pointer(weight_part),
                       pointer(weight_sums), V * H, stream),
            "add");
    if (bias)
      check(launch_column_sums(dtype, pointer(gradient), rows, V, pointer(bias_parts),
                               pointer(bias_sums), true, stream),
            "column_sums");
  }
  if (save && N == 0) torch::stable::zero_(dweight);
  Tensor loss = torch::stable::new_empty(x, {});
  check(launch_total(dtype, pointer(losses), N, pointer(loss), stream), "total");
  if (!whole) dweight = converted(weight_sums, storage);
  return {loss, dx, dweight, converted(bias_sums, storage)};
}

}  // namespace cuda
}  // namespace charlm
