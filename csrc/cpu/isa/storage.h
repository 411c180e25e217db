// Types that tensors hold, and what the kernels compute with them in.
#pragma once

// Compilers that know the instructions; older ones build the rest.
#if defined(__x86_64__) && defined(__has_include)
#if __has_include(<avx512bf16intrin.h>)
#define CHARLM_HAS_AVX512_BF16
#endif
#if __has_include(<avx512vnniintrin.h>)
#define CHARLM_HAS_AVX512_VNNI
#endif
#endif

namespace charlm {

using i64 = long long;

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
