// The extension's face to torch, through LibTorch's stable ABI: one build serves torch >= 2.10.
// Argument checks that a user can trip over are made in Python, beside the public functions.
#include <Python.h>
#include <torch/csrc/stable/library.h>

#include <string>

#include "cpu/generation.h"
#include "cpu/isa.h"
#include "cpu/lstm.h"

namespace {

// "" asks, a name sets; returns the names available, the one in use first.
std::string isa(std::string name) {
  if (!name.empty()) charlm::set_isa(name);
  std::string names = charlm::current_isa();
  for (const std::string& other : charlm::available_isas())
    if (other != charlm::current_isa()) names += "," + other;
  return names;
}

}  // namespace

STABLE_TORCH_LIBRARY(charlm_fast_native, m) {
  m.def(
      "lstm_forward(Tensor x, Tensor? ids, Tensor? batch_sizes, Tensor h0, Tensor c0, "
      "Tensor[] weights, bool has_bias, bool has_proj, bool reverse, bool save) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "lstm_backward(Tensor? dy, Tensor? dhn, Tensor? dcn, int input, Tensor? batch_sizes, "
      "Tensor c0, Tensor[] weights, bool has_bias, bool has_proj, bool reverse, Tensor reserve, "
      "int steps, bool need_input) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("segment_sum(Tensor rows, Tensor ids, int segments) -> Tensor");
  m.def("cross_entropy_(Tensor(a!) logits, Tensor targets, bool gradient) -> Tensor");
  m.def(
      "sample(Tensor logits, Tensor temperature, int top_k, float top_p, float floor, int seed, "
      "int offset) -> (Tensor, Tensor)");
  m.def(
      "generate(Tensor embedding, Tensor[] weights, bool has_bias, Tensor head, "
      "Tensor? head_bias, Tensor h0, Tensor c0, Tensor prompts, Tensor lengths, int length, "
      "Tensor temperature, int top_k, float top_p, float floor, int seed, int offset) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  m.def("isa(str name) -> str");
}

STABLE_TORCH_LIBRARY_IMPL(charlm_fast_native, CPU, m) {
  m.impl("lstm_forward", TORCH_BOX(&charlm::lstm_forward));
  m.impl("lstm_backward", TORCH_BOX(&charlm::lstm_backward));
  m.impl("segment_sum", TORCH_BOX(&charlm::segment_sum));
  m.impl("cross_entropy_", TORCH_BOX(&charlm::cross_entropy_));
  m.impl("sample", TORCH_BOX(&charlm::sample));
  m.impl("generate", TORCH_BOX(&charlm::generate));
}

STABLE_TORCH_LIBRARY_IMPL(charlm_fast_native, CompositeExplicitAutograd, m) {
  m.impl("isa", TORCH_BOX(&isa));
}

extern "C" PyObject* PyInit__C(void) {
  static struct PyModuleDef module = {
      PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
