// Tensors of Python as pointers and sizes.
//
// torch.Tensor has the table of functions by which DLPack exchanges tensors in C (DLPack 1.2, torch
// 2.10). One of them tells in one call what seven attributes would, each of which takes 50 ns.
#pragma once

#include <Python.h>

#include <cstdint>

namespace charlm {

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
  bool is_contiguous() const {
    int64_t step = 1;
    for (int32_t k = dim - 1; k >= 0; step *= size[k--])
      if (size[k] != 1 && stride[k] != step) return false;
    return true;
  }
};

// What is asked of torch once.
class Torch {
 public:
  // Null where torch has no such table; Python's error is not set.
  static const Torch* get();

  // Whether it is a tensor or a parameter, and no subclass, whose values are as they lie.
  bool read(PyObject* object, PlainTensor& to) const;

  // New tensors, or null and Python's error.
  PyObject* empty_like(PyObject* tensor) const;
  PyObject* new_empty(PyObject* like, PyObject* sizes) const;
  PyObject* contiguous(PyObject* tensor) const;

 private:
  using Read = int (*)(void* object, PlainTensor* to);
  Read read_ = nullptr;
  PyObject *tensor_ = nullptr, *parameter_ = nullptr;
  PyObject *is_neg_ = nullptr, *empty_like_ = nullptr, *new_empty_ = nullptr,
           *contiguous_ = nullptr;

  bool find();
};

}  // namespace charlm
