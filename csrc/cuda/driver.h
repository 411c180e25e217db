// What the CUDA drivers share: dtypes, products into given memory, steps, the current stream.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "kernels.h"

namespace charlm {
namespace cuda {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline void check(int code, const char* what) {
  STD_TORCH_CHECK(code == 0, "charlm_fast: the CUDA kernel ", what,
                  " could not start: ", error_text(code));
}

inline DType dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float:
      return DType::kFloat;
    case ScalarType::Double:
      return DType::kDouble;
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    case ScalarType::Half:
      return DType::kHalf;
    default:
      STD_TORCH_CHECK(false, "charlm_fast: the CUDA kernels serve float32, float64, bfloat16 and ",
                      "float16, got another dtype");
  }
}

inline ScalarType compute_type(const Tensor& t) {
  return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Kernels take bare pointers: a tensor of another dtype or device would be read as garbage.
inline void check_like(const Tensor& t, const Tensor& x, const char* what) {
  STD_TORCH_CHECK(
      t.is_contiguous() && t.scalar_type() == x.scalar_type() && t.device() == x.device(),
      "charlm_fast: ", what, " is not contiguous with the dtype and device of the input");
}

inline const i64* id_pointer(const Tensor& ids, const Tensor& x) {
  STD_TORCH_CHECK(
      ids.scalar_type() == ScalarType::Long && ids.is_contiguous() && ids.device() == x.device(),
      "charlm_fast: ids and targets must be contiguous, int64 and on the device of ", "the input");
  return reinterpret_cast<const i64*>(ids.const_data_ptr());
}

inline const double* temperature_pointer(const Tensor& temperature, int64_t rows, const Tensor& x) {
  STD_TORCH_CHECK(temperature.scalar_type() == ScalarType::Double && temperature.is_contiguous() &&
                      temperature.numel() == rows && temperature.device() == x.device(),
                  "charlm_fast: temperature must be contiguous, float64, one a row and on the ",
                  "device of the input");
  return temperature.const_data_ptr<double>();
}

inline void* stream_for(const Tensor& t) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream));
  return stream;
}

// out = a b in out's memory. With a wider out (float from bfloat16 or half) the sums reach it
// unrounded; whether float32 products may use TF32 is left to torch's own switch.
inline void product(const Tensor& a, const Tensor& b, const Tensor& out) {
  using torch::stable::detail::from;
  if (!out.numel()) return;
  StableIValue result;
  if (out.scalar_type() == a.scalar_type()) {
    std::array<StableIValue, 3> stack{from(a), from(b), from(out)};
    TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("aten::mm", "out", stack.data(), TORCH_ABI_VERSION));
    result = stack[0];
  } else {
    std::array<StableIValue, 4> stack{from(a), from(b), from(out.scalar_type()), from(out)};
    TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("aten::mm", "dtype_out", stack.data(), TORCH_ABI_VERSION));
    result = stack[0];
  }
  torch::stable::detail::to<Tensor>(result);  // a new handle of out: released here
}

inline Tensor transposed(const Tensor& t) { return torch::stable::transpose(t, 0, 1); }

inline Tensor rows_of(Tensor t, int64_t first, int64_t count) {
  return torch::stable::narrow(t, 0, first, count);
}

// In another dtype; the same tensor where it has that already.
inline Tensor converted(const Tensor& t, ScalarType type) {
  if (t.scalar_type() == type) return t;
  Tensor out = torch::stable::new_empty(t, t.sizes(), type);
  torch::stable::copy_(out, t);
  return out;
}

// The address of an element, counted from the tensor's first.
inline char* pointer(const Tensor& t, int64_t element = 0) {
  return static_cast<char*>(t.mutable_data_ptr()) +
         element * static_cast<int64_t>(t.element_size());
}

// Step t holds rows [0, size[t]) of the batch at row offset[t] of the sequence.
struct Steps {
  int64_t count;
  bool reverse;
  std::vector<int64_t> size, offset;

  Steps(int64_t steps, int64_t batch, const std::optional<Tensor>& batch_sizes, bool reverse_)
      : count(steps), reverse(reverse_), offset{0} {
    const int64_t* packed = nullptr;
    if (batch_sizes) {
      STD_TORCH_CHECK(batch_sizes->is_cpu() && batch_sizes->scalar_type() == ScalarType::Long,
                      "charlm_fast: batch_sizes must be an int64 tensor on the CPU");
      packed = batch_sizes->const_data_ptr<int64_t>();
    }
    for (int64_t t = 0; t < steps; ++t) {
      size.push_back(packed ? packed[t] : batch);
      STD_TORCH_CHECK(size.back() >= 0 && size.back() <= batch, "charlm_fast: batch_sizes holds ",
                      size.back(), ", expected values from 0 to ", batch);
      offset.push_back(offset.back() + size.back());
    }
  }

  int64_t rows() const { return offset.back(); }
  // The k-th step to run forward; backward runs them from the last k down.
  int64_t at(int64_t k) const { return reverse ? count - 1 - k : k; }
};

struct LayerWeights {
  Tensor w_ih, w_hh;
  std::optional<Tensor> bias, w_hr;
};

inline std::vector<LayerWeights> layers_of(const std::vector<Tensor>& weights, const Tensor& like,
                                           bool has_bias, bool has_proj) {
  const size_t each = 2 + has_bias + has_proj;
  STD_TORCH_CHECK(!weights.empty() && weights.size() % each == 0, "charlm_fast: got ",
                  weights.size(), " weights, expected a multiple of ", each);
  std::vector<LayerWeights> layers;
  for (size_t k = 0; k < weights.size(); k += each) {
    for (size_t j = 0; j < each; ++j) check_like(weights[k + j], like, "a weight");
    LayerWeights layer{weights[k], weights[k + 1], std::nullopt, std::nullopt};
    if (has_bias) layer.bias = weights[k + 2];
    if (has_proj) layer.w_hr = weights[k + each - 1];
    layers.push_back(layer);
  }
  return layers;
}

// The flat reserve, as laid out in charlm_fast/kernels/reserve.py.
struct Reserve {
  Tensor flat;
  int64_t N, H, R;
  int64_t cells, inner, hidden;  // first elements of the parts behind the gates

  Reserve(Tensor flat_, int64_t layers, int64_t N_, int64_t H_, int64_t R_)
      : flat(flat_),
        N(N_),
        H(H_),
        R(R_),
        cells(layers * N * 4 * H),
        inner(cells + layers * N * H),
        hidden(inner + (layers - 1) * N * R) {}

  static int64_t elements(int64_t layers, int64_t N, int64_t H, int64_t R, bool has_proj) {
    return layers * N * 5 * H + (layers - 1) * N * R + (has_proj ? layers * N * H : 0);
  }

  char* gates_of(int64_t layer, int64_t row) const {
    return pointer(flat, (layer * N + row) * 4 * H);
  }
  char* cells_of(int64_t layer, int64_t row) const {
    return pointer(flat, cells + (layer * N + row) * H);
  }
  Tensor inner_of(int64_t layer) const {
    return torch::stable::view(rows_of(flat, inner + layer * N * R, N * R), {N, R});
  }
  Tensor hidden_of(int64_t layer) const {
    return torch::stable::view(rows_of(flat, hidden + layer * N * H, N * H), {N, H});
  }
};

}  // namespace cuda
}  // namespace charlm
