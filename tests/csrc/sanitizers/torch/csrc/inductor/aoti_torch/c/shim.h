// New tensors and views of torch's C interface, as csrc/cpu asks for them.
#pragma once

#include <torch/csrc/stable/tensor.h>

using AOTITorchError = int32_t;

// A view, which must lie within its tensor's memory.
inline AOTITorchError aoti_torch__reinterpret_tensor(AtenTensorHandle from, int64_t dim,
                                                     const int64_t* sizes, const int64_t* strides,
                                                     int64_t offset, AtenTensorHandle* out) {
  *out = new AtenTensorOpaque(*from);
  (*out)->sizes.assign(sizes, sizes + dim);
  (*out)->strides.assign(strides, strides + dim);
  (*out)->offset += offset;
  int64_t last = (*out)->offset;
  bool empty = false;
  for (int64_t k = 0; k < dim; ++k) {
    last += (sizes[k] - 1) * strides[k];
    empty |= sizes[k] == 0;
  }
  STD_TORCH_CHECK(empty || ((*out)->offset >= 0 && last < from->capacity),
                  "a view ends at element ", last, " of ", from->capacity);
  return 0;
}

inline int32_t aoti_torch_device_type_cpu() { return 0; }

inline AOTITorchError aoti_torch_get_dtype(AtenTensorHandle tensor, int32_t* dtype) {
  *dtype = static_cast<int32_t>(tensor->type);
  return 0;
}

inline size_t aoti_torch_dtype_element_size(int32_t dtype) {
  return torch::headeronly::size_of(static_cast<torch::headeronly::ScalarType>(dtype));
}

inline AOTITorchError aoti_torch_empty_strided(int64_t dim, const int64_t* sizes,
                                               const int64_t* strides, int32_t dtype, int32_t,
                                               int32_t, AtenTensorHandle* out) {
  const auto type = static_cast<torch::headeronly::ScalarType>(dtype);
  *out = new AtenTensorOpaque(*torch::stable::Tensor({sizes, sizes + dim}, type).get());
  (*out)->strides.assign(strides, strides + dim);
  int64_t last = 0;
  for (int64_t k = 0; k < dim; ++k) last += (sizes[k] - 1) * strides[k];
  STD_TORCH_CHECK((*out)->capacity == 0 || last + 1 == (*out)->capacity, "a new tensor with gaps");
  return 0;
}
