// State that the kernels update in place, in the type they compute with.
#pragma once

#include "cpu/isa/bf16.h"
#include "cpu/memory/typed.h"
#include "cpu/memory/workspace.h"

namespace charlm {

// Starts as a copy of a tensor of S and ends as one: the tensor itself, or beside it a wider copy.
template <class S>
class Running {
 public:
  explicit Running(Tensor copy) : tensor_(std::move(copy)) {
    if constexpr (kWider) {
      wide_ = make_buffer<Compute<S>>(tensor_.numel());
      const S* from = values<S>(tensor_);
      for (int64_t k = 0; k < tensor_.numel(); ++k) wide_[k] = widen(from[k]);
    }
  }

  Compute<S>* data() const {
    if constexpr (kWider)
      return wide_.get();
    else
      return mutable_values<S>(tensor_);
  }

  Tensor result() const {
    if constexpr (kWider) {
      S* to = mutable_values<S>(tensor_);
      for (int64_t k = 0; k < tensor_.numel(); ++k) to[k] = narrow<S>(wide_[k]);
    }
    return tensor_;
  }

 private:
  static constexpr bool kWider = !std::is_same_v<S, Compute<S>>;
  Tensor tensor_;
  Buffer<Compute<S>> wide_;
};

}  // namespace charlm
