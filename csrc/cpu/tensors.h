// New tensors and views of them by torch's C interface: past its dispatcher, which takes longer
// than a step of a small model and is asked forty times for a training step.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <cstring>
#include <vector>

namespace charlm {

using torch::stable::Tensor;

// The strides of rows that lie side by side.
inline std::vector<int64_t> contiguous_strides(const std::vector<int64_t>& size) {
  std::vector<int64_t> strides(size.size(), 1);
  for (size_t k = size.size(); k-- > 1;) strides[k - 1] = strides[k] * (size[k] > 1 ? size[k] : 1);
  return strides;
}

// On the CPU, in the dtype of `like`, to be written whole.
inline Tensor make_empty(const Tensor& like, const std::vector<int64_t>& size) {
  int32_t dtype;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  const std::vector<int64_t> strides = contiguous_strides(size);
  AtenTensorHandle out;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(size.size()), size.data(),
                                                  strides.data(), dtype,
                                                  aoti_torch_device_type_cpu(), 0, &out));
  return Tensor(out);
}

inline std::vector<int64_t> size_of(const Tensor& t) {
  std::vector<int64_t> size;
  for (int64_t k = 0; k < t.dim(); ++k) size.push_back(t.size(k));
  return size;
}

inline Tensor make_like(const Tensor& t) { return make_empty(t, size_of(t)); }

inline size_t bytes_of(const Tensor& t) {
  int32_t dtype;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(t.get(), &dtype));
  return static_cast<size_t>(t.numel()) * aoti_torch_dtype_element_size(dtype);
}

inline Tensor make_zeros(const Tensor& like, const std::vector<int64_t>& size) {
  Tensor out = make_empty(like, size);
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
inline Tensor reshaped(const Tensor& t, const std::vector<int64_t>& size) {
  const std::vector<int64_t> strides = contiguous_strides(size);
  AtenTensorHandle out;
  TORCH_ERROR_CODE_CHECK(aoti_torch__reinterpret_tensor(t.get(), static_cast<int64_t>(size.size()),
                                                        size.data(), strides.data(), 0, &out));
  return Tensor(out);
}

}  // namespace charlm
