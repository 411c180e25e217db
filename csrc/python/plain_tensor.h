// Tensors of Python as pointers and sizes, and new ones.
//
// torch.Tensor has the table of functions by which DLPack exchanges tensors in C (DLPack 1.2, torch
// 2.10). One of them tells in one call what seven attributes would, each of which takes 50 ns. New
// tensors come from torch's C interface: its function for Python takes 8,600 instructions for one.
#pragma once

#include <Python.h>

#include <cstdint>

namespace charlm {

inline bool is_contiguous(int32_t dim, const int64_t* size, const int64_t* stride) {
  int64_t step = 1;
  for (int32_t k = dim - 1; k >= 0; step *= size[k--])
    if (size[k] != 1 && stride[k] != step) return false;
  return true;
}

// DLPack's DLTensor; sizes and strides are the tensor's own, and hold as long as it is unchanged.
struct PlainTensor {
  void* data;
  int32_t device, device_index, dim;
  uint8_t kind, bits;
  uint16_t lanes;
  const int64_t *size, *stride;
  uint64_t offset;

  static constexpr int32_t kCpu = 1;
  static constexpr uint8_t kFloat = 2;

  bool is_float(uint8_t of_bits) const {
    return device == kCpu && kind == kFloat && bits == of_bits && lanes == 1;
  }
  bool is_contiguous() const { return charlm::is_contiguous(dim, size, stride); }
};

// A function of torch that takes nothing, or a method that takes nothing but its object: called as
// the C function that it is where it is one, in a tenth of the time.
class Question {
 public:
  // Keeps a reference to `function`, for good. `of_type`: a method's descriptor, of which `bound`
  // is one bound to an object; both may be null, and Python's error set.
  static Question function(PyObject* function);
  static Question method(PyObject* of_type, PyObject* bound);

  bool there() const { return function_; }
  // A reference of one's own, or null and Python's error.
  PyObject* ask(PyObject* self = nullptr) const;
  // Whether the answer is neither False, 0 nor None; -1 and Python's error where there is none.
  int holds() const;

 private:
  PyObject* function_ = nullptr;
  PyObject* self_ = nullptr;  // of a C function of a module
  PyCFunction direct_ = nullptr;
  bool is_method_ = false;
};

// What is asked of torch once.
class Torch {
 public:
  // Null where torch has no such table; Python's error is not set.
  static const Torch* get();

  // Whether it is a tensor, and neither a parameter nor another subclass.
  bool is_tensor(PyObject* object) const {
    return reinterpret_cast<PyObject*>(Py_TYPE(object)) == tensor_;
  }
  // Whether it is a tensor or a parameter, and no other subclass.
  bool is_plain(PyObject* object) const {
    return is_tensor(object) || reinterpret_cast<PyObject*>(Py_TYPE(object)) == parameter_;
  }
  // Whether it is that, and its values are as they lie.
  bool read(PyObject* object, PlainTensor& to) const;

  // A new tensor on the CPU of 32 or 64 bits floats; *data is where its values go. Null, without an
  // error, where there is none to be had.
  PyObject* make(int64_t dim, const int64_t* size, const int64_t* stride, uint8_t bits,
                 void** data) const;
  // A tensor of torch's C interface as an object, which shares it; null as above.
  PyObject* wrap(const void* tensor) const;

 private:
  using Read = int (*)(void* object, PlainTensor* to);
  using Wrap = PyObject* (*)(const void* tensor);
  Read read_ = nullptr;
  Wrap wrap_ = nullptr;
  PyObject *tensor_ = nullptr, *parameter_ = nullptr;
  Question is_neg_;

  bool find();
};

}  // namespace charlm
