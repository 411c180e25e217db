// Sampling driver: checks what the kernel takes on trust.
#include "sample.h"

#include <algorithm>

#include "driver.h"
#include "sampling.h"

namespace charlm {
namespace cuda {

std::tuple<Tensor, Tensor> sample(Tensor logits, Tensor temperature, int64_t top_k, double top_p,
                                  double floor, int64_t seed, int64_t offset) {
  const torch::stable::accelerator::DeviceGuard guard(logits.get_device_index());
  check_like(logits, logits, "logits");
  const int64_t N = logits.size(0);
  SampleRows rows = {};
  rows.rows = N;
  rows.V = logits.size(1);
  rows.logits = pointer(logits);
  rows.temperature = temperature_pointer(temperature, N, logits);
  rows.sampling = {top_k, top_p, std::max(floor, kUnderflow), seed, offset};
  Tensor ids = torch::stable::new_empty(logits, {N}, ScalarType::Long);
  Tensor logprobs = torch::stable::new_empty(logits, {N}, compute_type(logits));
  rows.ids = reinterpret_cast<i64*>(pointer(ids));
  rows.logprobs = pointer(logprobs);
  check(launch_sample(dtype_of(logits), rows, stream_for(logits)), "sample");
  return {ids, logprobs};
}

}  // namespace cuda
}  // namespace charlm
