// Types that tensors hold, and what the kernels compute with them in.
#pragma once

namespace charlm {

// The upper half of a float.
struct bf16 {
  unsigned short bits;
};

template <class S>
struct ComputedIn {
  using Type = S;
};
template <>
struct ComputedIn<bf16> {
  using Type = float;
};

template <class S>
using Compute = typename ComputedIn<S>::Type;

}  // namespace charlm
