#include "python/plain_tensor.h"

#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <exception>

#include "python/errors.h"
#include "python/reference.h"

namespace charlm {
namespace {

// DLPack's DLPackExchangeAPI.
struct Exchange {
  uint32_t major, minor;
  Exchange* before;
  void *allocate, *from_object, *to_object;
  int (*read)(void* object, PlainTensor* to);
};

// Torch's function that makes a Python object of a tensor, by the name that it has for linkers: all
// extensions of torch in C++ call it. It is looked for in the library that `neighbour` is in, since
// Python keeps the names of libraries it loads apart.
void* function_beside(void* neighbour, const char* name) {
  Dl_info info;
  if (!dladdr(neighbour, &info) || !info.dli_fname) return nullptr;
  void* const library = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
  if (!library) return nullptr;
  void* const found = dlsym(library, name);
  dlclose(library);
  return found;
}

PyCFunction function_of(PyObject* builtin) {
  if (!builtin || !PyCFunction_Check(builtin)) return nullptr;
  return PyCFunction_GetFlags(builtin) == METH_NOARGS ? PyCFunction_GetFunction(builtin) : nullptr;
}

}  // namespace

Question Question::function(PyObject* function) {
  Question q;
  q.function_ = function;
  q.direct_ = function_of(function);
  if (q.direct_) q.self_ = PyCFunction_GetSelf(function);
  return q;
}

Question Question::method(PyObject* of_type, PyObject* bound) {
  Question q;
  q.function_ = of_type;
  q.is_method_ = true;
  q.direct_ = function_of(bound);
  return q;
}

PyObject* Question::ask(PyObject* self) const {
  if (direct_) return direct_(is_method_ ? self : self_, nullptr);
  return PyObject_CallFunctionObjArgs(function_, self, nullptr);
}

int Question::holds() const {
  PyObject* const answer = ask();
  if (!answer) return -1;
  const int truth = answer == Py_False || answer == Py_None ? 0 : PyObject_IsTrue(answer);
  Py_DECREF(answer);
  return truth;
}

bool Torch::find() {
  PyObject* const torch = PyImport_ImportModule("torch");
  tensor_ = attribute(torch, "Tensor");
  PyObject* const nn = attribute(torch, "nn");
  parameter_ = attribute(nn, "Parameter");
  PyObject* const capsule = attribute(tensor_, "__dlpack_c_exchange_api__");
  if (!capsule || PyErr_Occurred()) return false;
  const void* table = PyCapsule_GetPointer(capsule, "dlpack_exchange_api");
  const Exchange* const exchange = static_cast<const Exchange*>(table);
  if (!exchange || exchange->major != 1 || !exchange->read) return false;
  wrap_ = reinterpret_cast<Wrap>(function_beside(reinterpret_cast<void*>(exchange->read),
                                                 "_Z16THPVariable_WrapRKN2at10TensorBaseE"));
  if (!wrap_) return false;
  const int64_t none = 0, step = 1;
  void* data;
  PyObject* const empty = make(1, &none, &step, 32, &data);
  PyObject* const bound = attribute(empty, "is_neg");
  is_neg_ = Question::method(attribute(tensor_, "is_neg"), bound);
  Py_XDECREF(bound);
  Py_XDECREF(empty);
  if (!is_neg_.there() || PyErr_Occurred()) return false;
  read_ = exchange->read;
  return true;
}

const Torch* Torch::get() {
  // Not by a static's own guard, which a thread would wait for with Python's lock in its hands.
  static Torch torch;
  static bool asked = false;
  if (!asked) {
    Torch found;
    if (!found.find()) {
      PyErr_Clear();
      found.read_ = nullptr;
    }
    torch = found;
    asked = true;
  }
  return torch.read_ ? &torch : nullptr;
}

bool Torch::read(PyObject* object, PlainTensor& to) const {
  if (!is_plain(object)) return false;
  if (read_(object, &to) != 0) {  // a layout without memory of its own, such as a sparse one
    forget_exception();
    return false;
  }
  if (!to.data) return false;  // zeros or another's values that nobody has written down
  to.data = static_cast<char*>(to.data) + to.offset;
  PyObject* const negative = is_neg_.ask(object);
  if (!negative) forget_exception();
  Py_XDECREF(negative);
  return negative == Py_False;
}

PyObject* Torch::make(int64_t dim, const int64_t* size, const int64_t* stride, uint8_t bits,
                      void** data) const {
  AtenTensorHandle tensor = nullptr;
  const int32_t dtype = bits == 64 ? aoti_torch_dtype_float64() : aoti_torch_dtype_float32();
  if (aoti_torch_empty_strided(dim, size, stride, dtype, aoti_torch_device_type_cpu(), 0, &tensor))
    return nullptr;
  PyObject* const found = aoti_torch_get_data_ptr(tensor, data) ? nullptr : wrap(tensor);
  aoti_torch_delete_tensor_object(tensor);  // the object has a share of its own
  return found;
}

PyObject* Torch::wrap(const void* tensor) const {
  PyObject* found = nullptr;
  try {
    found = wrap_(tensor);
  } catch (const std::exception&) {
  }
  if (!found) PyErr_Clear();
  return found;
}

}  // namespace charlm
