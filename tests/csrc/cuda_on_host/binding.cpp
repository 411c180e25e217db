// The CUDA drivers under a namespace of their own, for tensors on the CPU.
#include <torch/csrc/stable/library.h>

#include "cuda/lstm.h"
#include "cuda/sample.h"
#include "cuda/sequence.h"

namespace {

charlm::cuda::DeviceFacts device = {};  // by default one on which nothing persistent fits

// `sixteens`, `fours`: clusters of so many blocks that run at the same time, where not all do.
void set_device(int64_t sm, int64_t multiprocessors, int64_t shared_memory, int64_t max_cluster,
                int64_t fours, int64_t sixteens) {
  device = {static_cast<int>(sm),
            static_cast<int>(multiprocessors),
            shared_memory,
            static_cast<int>(max_cluster),
            {},
            false};
  device.clusters[2] = static_cast<int>(fours);
  device.clusters[4] = static_cast<int>(sixteens);
}

}  // namespace

int charlm::cuda::device_facts(DeviceFacts* facts) {
  *facts = device;
  return 0;
}

// What the drivers take from the CUDA half of torch. Linked with -Bsymbolic.
extern "C" {
AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = nullptr;
  return 0;
}
AOTITorchError aoti_torch_create_device_guard(int32_t, DeviceGuardHandle* guard) {
  *guard = nullptr;
  return 0;
}
AOTITorchError aoti_torch_delete_device_guard(DeviceGuardHandle) { return 0; }
}

STABLE_TORCH_LIBRARY(charlm_fast_on_host, m) {
  m.def(
      "lstm_forward(Tensor x, Tensor? ids, Tensor? batch_sizes, Tensor h0, Tensor c0, "
      "Tensor[] weights, bool has_bias, bool has_proj, bool reverse, bool save) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "lstm_backward(Tensor? dy, Tensor? dhn, Tensor? dcn, int input, Tensor? batch_sizes, "
      "Tensor c0, Tensor[] weights, bool has_bias, bool has_proj, bool reverse, Tensor reserve, "
      "int steps, bool need_input) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
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
  m.def("segment_sum(Tensor rows, Tensor ids, int segments) -> Tensor");
  m.def(
      "sample(Tensor logits, Tensor temperature, int top_k, float top_p, float floor, int seed, "
      "int offset) -> (Tensor, Tensor)");
  m.def(
      "generate(Tensor embedding, Tensor[] weights, bool has_bias, Tensor head, "
      "Tensor? head_bias, Tensor h0, Tensor c0, Tensor prompts, Tensor lengths, int length, "
      "Tensor temperature, int top_k, float top_p, float floor, int seed, int offset) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "generate_plan(Tensor like, int hidden, int inputs, int layers, int vocabulary, int batch, "
      "int steps, bool top_p) -> str");
  m.def(
      "set_device(int sm, int multiprocessors, int shared_memory, int max_cluster, int fours=0, "
      "int sixteens=0) -> ()");
  m.def(
      "linear_cross_entropy(Tensor x, Tensor weight, Tensor? bias, Tensor targets, bool save) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(charlm_fast_on_host, CPU, m) {
  m.impl("lstm_forward", TORCH_BOX(&charlm::cuda::lstm_forward));
  m.impl("lstm_backward", TORCH_BOX(&charlm::cuda::lstm_backward));
  m.impl("lstm_forward_tf32", TORCH_BOX(&charlm::cuda::lstm_forward_tf32));
  m.impl("lstm_backward_tf32", TORCH_BOX(&charlm::cuda::lstm_backward_tf32));
  m.impl("lstm_plan", TORCH_BOX(&charlm::cuda::lstm_plan));
  m.impl("segment_sum", TORCH_BOX(&charlm::cuda::segment_sum));
  m.impl("sample", TORCH_BOX(&charlm::cuda::sample));
  m.impl("generate", TORCH_BOX(&charlm::cuda::generate));
  m.impl("generate_plan", TORCH_BOX(&charlm::cuda::generate_plan));
  m.impl("linear_cross_entropy", TORCH_BOX(&charlm::cuda::linear_cross_entropy));
}

STABLE_TORCH_LIBRARY_IMPL(charlm_fast_on_host, CompositeExplicitAutograd, m) {
  m.impl("set_device", TORCH_BOX(&set_device));
  m.impl("lstm_stack", TORCH_BOX(&charlm::cuda::lstm_stack));
}
