// New tensors and views of them by torch's C interface: past its dispatcher, which takes longer
// than a step of a small model and is asked forty times for a training step.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>

namespace charlm {

using torch::stable::Tensor;

// A contiguous tensor's sizes. On the stack: a small piece of the heap, taken and given back beside
// a large one, can keep the large one's place from being taken again.
struct Shape {
  static constexpr int64_t kMost = 4;
  int64_t dim = 0, size[kMost];

  Shape(std::initializer_list<int64_t> sizes) {
    for (int64_t n : sizes) append(n);
  }

  // The first `count` sizes of a tensor.
  Shape(const Tensor& t, int64_t count) {
    for (int64_t k = 0; k < count; ++k) append(t.size(k));
  }

  void append(int64_t n) {
    STD_TORCH_CHECK(dim < kMost, "charlm_fast: a tensor has more than ", kMost, " dimensions");
    size[dim++] = n;
  }

  void strides(int64_t* to) const {
    for (int64_t k = dim - 1, step = 1; k >= 0; --k) {
      to[k] = step;
      step *= std::max<int64_t>(size[k], 1);
    }
  }
};

// On the CPU, in the dtype of `like`, to be written whole.
inline Tensor make_empty(const Tensor& like, const Shape& shape) {
  int32_t dtype;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  int64_t strides[Shape::kMost];
  shape.strides(strides);
  AtenTensorHandle out;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(shape.dim, shape.size, strides, dtype,
                                                  aoti_torch_device_type_cpu(), 0, &out));
  return Tensor(out);
}

inline Tensor make_like(const Tensor& t) { return make_empty(t, Shape(t, t.dim())); }

inline size_t bytes_of(const Tensor& t) {
  int32_t dtype;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(t.get(), &dtype));
  return static_cast<size_t>(t.numel()) * aoti_torch_dtype_element_size(dtype);
}

inline Tensor make_zeros(const Tensor& like, const Shape& shape) {
  Tensor out = make_empty(like, shape);
  if (const size_t bytes = bytes_of(out)) std::memset(out.mutable_data_ptr(), 0, bytes);
  return out;
}

// Of a contiguous tensor.
inline Tensor make_copy(const Tensor& t) {
  Tensor out = make_like(t);
  if (const size_t bytes = bytes_of(t))
    std::memcpy(out.mutable_data_ptr(), t.const_data_ptr(), bytes);
  return out;
}

// A contiguous tensor in another shape.
inline Tensor reshaped(const Tensor& t, const Shape& shape) {
  int64_t strides[Shape::kMost];
  shape.strides(strides);
  AtenTensorHandle out;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch__reinterpret_tensor(t.get(), shape.dim, shape.size, strides, 0, &out));
  return Tensor(out);
}

}  // namespace charlm
