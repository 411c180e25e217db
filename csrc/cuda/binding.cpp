// The CUDA kernels behind the operations that csrc/binding.cpp defines.
#include <torch/csrc/stable/library.h>

#include "lstm.h"
#include "sample.h"

STABLE_TORCH_LIBRARY_IMPL(charlm_fast_native, CUDA, m) {
  m.impl("lstm_forward", TORCH_BOX(&charlm::cuda::lstm_forward));
  m.impl("lstm_backward", TORCH_BOX(&charlm::cuda::lstm_backward));
  m.impl("segment_sum", TORCH_BOX(&charlm::cuda::segment_sum));
  m.impl("linear_cross_entropy", TORCH_BOX(&charlm::cuda::linear_cross_entropy));
  m.impl("sample", TORCH_BOX(&charlm::cuda::sample));
  m.impl("generate", TORCH_BOX(&charlm::cuda::generate));
}

STABLE_TORCH_LIBRARY_FRAGMENT(charlm_fast_native, m) {
  m.def(
      "lstm_forward_tf32(Tensor x, Tensor? ids, Tensor? batch_sizes, Tensor h0, "
      "Tensor c0, Tensor[] weights, bool has_bias, bool has_proj, bool reverse, bool save) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "lstm_backward_tf32(Tensor? dy, Tensor? dhn, Tensor? dcn, int input, Tensor? batch_sizes, "
      "Tensor c0, Tensor[] weights, bool has_bias, bool has_proj, bool reverse, Tensor reserve, "
      "int steps, bool need_input) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "lstm_plan(Tensor like, int hidden, int batch, bool has_proj, bool packed, bool backward, "
      "int layers=1, bool tf32=False) -> str");
  m.def("lstm_stack(bool may) -> ()");
  m.def(
      "generate_plan(Tensor like, int hidden, int inputs, int layers, int vocabulary, int batch, "
      "int steps, bool top_p) -> str");
}

STABLE_TORCH_LIBRARY_IMPL(charlm_fast_native, CUDA, m) {
  m.impl("lstm_forward_tf32", TORCH_BOX(&charlm::cuda::lstm_forward_tf32));
  m.impl("lstm_backward_tf32", TORCH_BOX(&charlm::cuda::lstm_backward_tf32));
  m.impl("lstm_plan", TORCH_BOX(&charlm::cuda::lstm_plan));
  m.impl("generate_plan", TORCH_BOX(&charlm::cuda::generate_plan));
}

STABLE_TORCH_LIBRARY_IMPL(charlm_fast_native, CompositeExplicitAutograd, m) {
  m.impl("lstm_stack", TORCH_BOX(&charlm::cuda::lstm_stack));
}
