// The checks of Python's long way to a sequence, and torch's dispatcher, take 0.2 ms, which is as
// long as 15 of 200 steps of 128 units. So a module's plain call goes to the driver itself, with
// views of what Python holds.
#include "python/sequence.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <optional>
#include <tuple>
#include <vector>

#include "cpu/lstm/lstm.h"
#include "cpu/memory/tensors.h"
#include "python/call.h"

namespace charlm {
namespace {

// A tensor over another's values.
Tensor view(const void* data, const Shape& shape, int32_t dtype) {
  int64_t strides[Shape::kMost];
  shape.strides(strides);
  AtenTensorHandle out;
  TORCH_ERROR_CODE_CHECK(aoti_torch_create_tensor_from_blob(const_cast<void*>(data), shape.dim,
                                                            shape.size, strides, 0, dtype,
                                                            aoti_torch_device_type_cpu(), 0, &out));
  return Tensor(out);
}

template <class T>
void add(const void* a, const void* b, int64_t count, Tensor& to) {
  T* const sums = static_cast<T*>(to.mutable_data_ptr());
  for (int64_t k = 0; k < count; ++k)
    sums[k] = static_cast<const T*>(a)[k] + static_cast<const T*>(b)[k];
}

}  // namespace

Ran run_sequence(const Torch& torch, LstmCall& call, LstmResults& to) {
  const Steps& s = call.sizes;
  bool fits = true;
  const int32_t dtype = s.is_double ? aoti_torch_dtype_float64() : aoti_torch_dtype_float32();
  std::tuple<Tensor, Tensor, Tensor, Tensor> found;
  Tensor y;
  const auto run = [&] {
    if (!(fits = call.lay_out())) return;
    const Tensor x = view(s.x, {s.T, s.B, s.I}, dtype);
    std::vector<Tensor> weights;
    for (int64_t l = 0; l < s.L; ++l) {
      const CellWeights& w = s.weights[l];
      weights.push_back(view(w.w_ih, {4 * s.H, l ? s.H : s.I}, dtype));
      weights.push_back(view(w.w_hh, {4 * s.H, s.H}, dtype));
      if (!call.has_bias()) continue;
      Tensor bias = make_empty(x, {4 * s.H});
      (s.is_double ? add<double> : add<float>)(w.b_ih, w.b_hh, 4 * s.H, bias);
      weights.push_back(bias);
    }
    found = lstm_forward(x, std::nullopt, std::nullopt, view(s.h_0, {s.L, s.B, s.H}, dtype),
                         view(s.c_0, {s.L, s.B, s.H}, dtype), std::move(weights), call.has_bias(),
                         false, false, false);
    y = std::get<0>(found);
    if (!call.batch_first()) return;
    const int64_t size[] = {s.B, s.T, s.H}, stride[] = {s.H, s.B * s.H, 1};
    AtenTensorHandle swapped;
    TORCH_ERROR_CODE_CHECK(aoti_torch__reinterpret_tensor(y.get(), 3, size, stride, 0, &swapped));
    y = Tensor(swapped);
  };
  if (!ran(run, call.products() >= kWorthUnlocking)) return Ran::error;
  if (!fits) return Ran::not_for_it;
  to.y.reset(torch.wrap(y.get()));
  to.h_n.reset(torch.wrap(std::get<1>(found).get()));
  to.c_n.reset(torch.wrap(std::get<2>(found).get()));
  return to.y.get() && to.h_n.get() && to.c_n.get() ? Ran::yes : Ran::not_for_it;
}

}  // namespace charlm
