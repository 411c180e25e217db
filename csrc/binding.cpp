// The extension's face to torch, through LibTorch's stable ABI: one build serves torch >= 2.10.
// Argument checks that a user can trip over are made in Python, beside the public functions.
#include <Python.h>
#include <torch/csrc/stable/library.h>

#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "cpu/isa/isa.h"
#include "cpu/lstm/lstm.h"
#include "cpu/quantized/int8.h"
#include "cpu/steps/steps.h"
#include "cpu/text/args.h"
#include "cpu/text/generation.h"
#include "cpu/text/loss.h"
#include "python/call.h"
#include "python/few_steps.h"
#include "python/module_call.h"

namespace {

using charlm::Arguments;
using charlm::call;
using charlm::fast;
using charlm::kWorthUnlocking;

// "" asks, a name sets; returns the names available, the one in use first.
std::string isa(std::string name) {
  if (!name.empty()) charlm::set_isa(name);
  std::string names = charlm::current_isa();
  for (const std::string& other : charlm::available_isas())
    if (other != charlm::current_isa()) names += "," + other;
  return names;
}

// sample_few for Python; see few_rows in kernels/native/sample.py for the arguments.
PyObject* sample_few(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 12) {
    PyErr_SetString(PyExc_TypeError, "sample_few: expected 12 arguments");
    return nullptr;
  }
  const auto integer = [&](int k) { return PyLong_AsLongLong(args[k]); };
  const auto address = [&](int k) { return PyLong_AsVoidPtr(args[k]); };
  const charlm::FewRows rows = {args[0] == Py_True,
                                address(1),
                                integer(2),
                                integer(3),
                                PyFloat_AsDouble(args[4]),
                                static_cast<int64_t*>(address(5)),
                                address(6)};
  const charlm::Sampling sampling = {integer(7), PyFloat_AsDouble(args[8]),
                                     PyFloat_AsDouble(args[9]),
                                     args[10] == Py_None ? rows.ids[0] : integer(10), integer(11)};
  if (PyErr_Occurred()) return nullptr;
  try {
    return PyLong_FromLongLong(charlm::sample_few(rows, sampling));
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
    return nullptr;
  }
}

// lstm_steps for Python; see kernels/native/steps.py for the arguments. Few layers and one step
// allocate nothing.
PyObject* lstm_steps(PyObject*, PyObject* const* args, Py_ssize_t count) {
  constexpr Py_ssize_t fixed = 12, each = 4;
  if (count < fixed + each || (count - fixed) % each) {
    PyErr_SetString(PyExc_TypeError, "lstm_steps: expected 12 arguments and 4 for each layer");
    return nullptr;
  }
  Arguments a(args, count);
  charlm::Steps s = {};
  s.is_double = a.flag();
  s.L = (count - fixed) / each;
  for (int64_t* size : {&s.T, &s.B, &s.I, &s.H}) *size = a.integer();
  for (const void** from : {&s.x, &s.h_0, &s.c_0}) *from = a.address();
  for (void** to : {&s.y, &s.h_n, &s.c_n, &s.gates}) *to = a.address();
  constexpr int64_t few = 8;
  charlm::CellWeights here[few];
  std::vector<charlm::CellWeights> many(s.L > few ? s.L : 0);
  charlm::CellWeights* weights = s.L > few ? many.data() : here;
  s.weights = weights;
  for (int64_t l = 0; l < s.L; ++l) weights[l] = a.weights();
  const double products = 4.0 * s.T * s.B * s.H * (s.I + (2 * s.L - 1) * s.H);
  return call([&] { charlm::lstm_steps(s); }, products >= kWorthUnlocking);
}

// lstm_cell_backward for Python; see kernels/native/steps.py for the arguments.
PyObject* lstm_cell_backward(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 22) {
    PyErr_SetString(PyExc_TypeError, "lstm_cell_backward: expected 22 arguments");
    return nullptr;
  }
  Arguments a(args, count);
  charlm::CellGradients g = {};
  g.is_double = a.flag();
  for (int64_t* size : {&g.B, &g.I, &g.H}) *size = a.integer();
  for (const void** from : {&g.dh, &g.dc, &g.x, &g.h_0, &g.c_0, &g.gates, &g.c})
    *from = a.address();
  g.weights = a.weights();
  for (void** to : {&g.dx, &g.dh_0, &g.dc_0, &g.dw_ih, &g.dw_hh, &g.db_ih, &g.db_hh})
    *to = a.address();
  return call([&] { charlm::lstm_cell_backward(g); });
}

// lstm_int8 for Python; see kernels/native/int8.py for the arguments.
PyObject* lstm_int8(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 17) {
    PyErr_SetString(PyExc_TypeError, "lstm_int8: expected 17 arguments");
    return nullptr;
  }
  Arguments a(args, count);
  charlm::Int8Sequence s = {};
  s.packed = a.address();
  for (int64_t* size : {&s.L, &s.T, &s.B, &s.N, &s.I, &s.H, &s.R}) *size = a.integer();
  s.has_proj = a.flag();
  s.reverse = a.flag();
  s.batch_sizes = static_cast<const int64_t*>(a.address());
  for (const float** from : {&s.x, &s.h_0, &s.c_0}) *from = static_cast<float*>(a.address());
  for (float** to : {&s.y, &s.h_n, &s.c_n}) *to = static_cast<float*>(a.address());
  const double products = 4.0 * s.N * s.H * (s.I + (2 * s.L - 1) * s.R);
  return call([&] { charlm::lstm_int8(s); }, products >= kWorthUnlocking);
}

// linear_int8 for Python, as above.
PyObject* linear_int8(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 6) {
    PyErr_SetString(PyExc_TypeError, "linear_int8: expected 6 arguments");
    return nullptr;
  }
  Arguments a(args, count);
  const void* packed = a.address();
  const int64_t rows = a.integer(), K = a.integer(), N = a.integer();
  const float* x = static_cast<const float*>(a.address());
  float* y = static_cast<float*>(a.address());
  return call([&] { charlm::linear_int8(packed, rows, K, N, x, y); },
              1.0 * rows * K * N >= kWorthUnlocking);
}

PyObject* int8_layout(PyObject*, PyObject*) { return PyLong_FromLongLong(charlm::int8_layout()); }

// A variable of the environment, which Python keeps up to date; os.environ raises and catches an
// error for one that is not set, and takes ten times as long.
PyObject* is_set(PyObject*, PyObject* name) {
  const char* text = PyBytes_AsString(name);
  if (!text) return nullptr;
  const char* value = std::getenv(text);
  return PyBool_FromLong(value && *value);
}

PyMethodDef methods[] = {{"is_set", is_set, METH_O, nullptr},
                         fast("sample_few", sample_few),
                         fast("few_steps", charlm::few_steps),
                         fast("module_call", charlm::module_call),
                         {"registered_weights", charlm::registered_weights, METH_O, nullptr},
                         fast("lstm_steps", lstm_steps),
                         fast("lstm_cell_backward", lstm_cell_backward),
                         {"int8_layout", int8_layout, METH_NOARGS, nullptr},
                         fast("lstm_int8", lstm_int8),
                         fast("linear_int8", linear_int8),
                         {}};

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
  m.def(
      "lstm_gradients(Tensor? dy, Tensor? dhn, Tensor? dcn, Tensor x, Tensor? ids, "
      "Tensor? batch_sizes, Tensor[] seen, Tensor h0, Tensor c0, Tensor[] weights, "
      "bool has_bias, bool has_proj, bool reverse, Tensor y, Tensor(a!) reserve, bool need_input, "
      "bool need_weights, bool overwrite) -> (Tensor, Tensor, Tensor, Tensor[])");
  m.def(
      "linear_cross_entropy(Tensor x, Tensor weight, Tensor? bias, Tensor targets, bool save) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "lstm_loss(Tensor embedding, Tensor[] weights, Tensor head, Tensor head_bias, Tensor h0, "
      "Tensor c0, Tensor ids, Tensor targets) -> (Tensor, Tensor, Tensor, Tensor[])");
  m.def(
      "lstm_loss_backward(Tensor? dloss, Tensor? dhn, Tensor? dcn, Tensor embedding, "
      "Tensor[] weights, Tensor h0, Tensor c0, Tensor ids, Tensor(a!)[] saved, bool need_input, "
      "bool need_weights, bool overwrite) -> Tensor[]");
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
  m.def("int8_pack(Tensor[] weights, bool has_bias, bool has_proj) -> Tensor");
  m.def("int8_pack_linear(Tensor weight, Tensor scale, Tensor? bias) -> Tensor");
  m.def(
      "generate_int8(Tensor embedding, Tensor packed, Tensor packed_head, Tensor h0, Tensor c0, "
      "Tensor prompts, Tensor lengths, int length, Tensor temperature, int top_k, float top_p, "
      "float floor, int seed, int offset) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("isa(str name) -> str");
}

STABLE_TORCH_LIBRARY_IMPL(charlm_fast_native, CPU, m) {
  m.impl("lstm_forward", TORCH_BOX(&charlm::lstm_forward));
  m.impl("lstm_gradients", TORCH_BOX(&charlm::lstm_gradients));
  m.impl("linear_cross_entropy", TORCH_BOX(&charlm::linear_cross_entropy));
  m.impl("lstm_loss", TORCH_BOX(&charlm::lstm_loss));
  m.impl("lstm_loss_backward", TORCH_BOX(&charlm::lstm_loss_backward));
  m.impl("segment_sum", TORCH_BOX(&charlm::segment_sum));
  m.impl("cross_entropy_", TORCH_BOX(&charlm::cross_entropy_));
  m.impl("sample", TORCH_BOX(&charlm::sample));
  m.impl("generate", TORCH_BOX(&charlm::generate));
  m.impl("generate_int8", TORCH_BOX(&charlm::generate_int8));
  m.impl("int8_pack", TORCH_BOX(&charlm::int8_pack));
  m.impl("int8_pack_linear", TORCH_BOX(&charlm::int8_pack_linear));
}

STABLE_TORCH_LIBRARY_IMPL(charlm_fast_native, CompositeExplicitAutograd, m) {
  m.impl("isa", TORCH_BOX(&isa));
}

PyMODINIT_FUNC PyInit__C(void) {
  static struct PyModuleDef module = {
      PyModuleDef_HEAD_INIT, "_C", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
