// Tensors by the type that they hold.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cpu/isa/storage.h"
#include "cpu/memory/pages.h"
#include "cpu/memory/tensors.h"

namespace charlm {

// A tensor's values; torch's own accessors know no bf16 of ours.
template <class S>
const S* values(const Tensor& t) {
  if constexpr (std::is_same_v<S, bf16>)
    return static_cast<const bf16*>(t.const_data_ptr());
  else
    return t.const_data_ptr<S>();
}
template <class S>
S* mutable_values(const Tensor& t) {
  if constexpr (std::is_same_v<S, bf16>)
    return static_cast<bf16*>(t.mutable_data_ptr());
  else
    return t.mutable_data_ptr<S>();
}

// Calls run(S{}) for the type that the tensor holds.
template <class Run>
auto with_type_of(const Tensor& t, const Run& run) {
  using torch::headeronly::ScalarType;
  const ScalarType type = t.scalar_type();
  STD_TORCH_CHECK(
      type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::BFloat16,
      "charlm_fast: the CPU kernels take float32, float64 and bfloat16");
  if (type == ScalarType::Float) return run(float{});
  if (type == ScalarType::Double) return run(double{});
  return run(bf16{});
}

// A tensor to be written whole.
template <class T>
Tensor make_tensor(const Tensor& like, const Shape& shape) {
  Tensor t = make_empty(like, shape);
  advise_huge_pages(mutable_values<T>(t), static_cast<size_t>(t.numel()) * sizeof(T));
  return t;
}

inline void check_ids(const int64_t* ids, int64_t count, int64_t limit, const char* what) {
  for (int64_t k = 0; k < count; ++k)
    STD_TORCH_CHECK(ids[k] >= 0 && ids[k] < limit, "charlm_fast: ", what, " holds ", ids[k],
                    ", expected values from 0 to ", limit - 1);
}

}  // namespace charlm
