#include "python/plain_tensor.h"

namespace charlm {
namespace {

// DLPack's DLPackExchangeAPI.
struct Exchange {
  uint32_t major, minor;
  Exchange* before;
  void *allocate, *from_object, *to_object;
  int (*read)(void* object, PlainTensor* to);
};

// An attribute of a module or type, kept for good; null where there is none.
PyObject* attribute(PyObject* of, const char* name) {
  return of ? PyObject_GetAttrString(of, name) : nullptr;
}

}  // namespace

bool Torch::find() {
  PyObject* const torch = PyImport_ImportModule("torch");
  tensor_ = attribute(torch, "Tensor");
  PyObject* const nn = attribute(torch, "nn");
  parameter_ = attribute(nn, "Parameter");
  empty_like_ = attribute(torch, "empty_like");
  is_neg_ = attribute(tensor_, "is_neg");
  new_empty_ = attribute(tensor_, "new_empty");
  contiguous_ = attribute(tensor_, "contiguous");
  PyObject* const capsule = attribute(tensor_, "__dlpack_c_exchange_api__");
  if (!capsule || PyErr_Occurred()) return false;
  const void* table = PyCapsule_GetPointer(capsule, "dlpack_exchange_api");
  const Exchange* const exchange = static_cast<const Exchange*>(table);
  if (!exchange || exchange->major != 1) return false;
  read_ = exchange->read;
  return read_ != nullptr;
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
  PyObject* const type = reinterpret_cast<PyObject*>(Py_TYPE(object));
  if (type != tensor_ && type != parameter_) return false;
  if (read_(object, &to) != 0) {  // a layout without memory of its own, such as a sparse one
    PyErr_Clear();
    return false;
  }
  if (!to.data) return false;  // zeros or another's values that nobody has written down
  to.data = static_cast<char*>(to.data) + to.offset;
  PyObject* const negative = PyObject_CallFunctionObjArgs(is_neg_, object, nullptr);
  if (!negative) PyErr_Clear();
  Py_XDECREF(negative);
  return negative == Py_False;
}

PyObject* Torch::empty_like(PyObject* tensor) const {
  return PyObject_CallFunctionObjArgs(empty_like_, tensor, nullptr);
}

PyObject* Torch::new_empty(PyObject* like, PyObject* sizes) const {
  return PyObject_CallFunctionObjArgs(new_empty_, like, sizes, nullptr);
}

PyObject* Torch::contiguous(PyObject* tensor) const {
  return PyObject_CallFunctionObjArgs(contiguous_, tensor, nullptr);
}

}  // namespace charlm
