// Vector types of one instruction set, through GCC/Clang vector extensions.
//
// A translation unit fixes CHARLM_ISA (a namespace name) and CHARLM_VECTOR_BYTES
// before including this header, after any `#pragma ... target`. Nothing here may
// include a standard header: an inline function of the standard library compiled for
// AVX-512 could be the copy that the linker keeps for machines that lack it.
#pragma once

#define CHARLM_INLINE inline __attribute__((always_inline))

namespace charlm {
namespace CHARLM_ISA {

using i64 = long long;

template <class T>
struct Lanes;

template <>
struct Lanes<float> {
  typedef float V __attribute__((vector_size(CHARLM_VECTOR_BYTES)));
  typedef float Loose __attribute__((vector_size(CHARLM_VECTOR_BYTES), aligned(4), may_alias));
  typedef int I __attribute__((vector_size(CHARLM_VECTOR_BYTES)));
};

template <>
struct Lanes<double> {
  typedef double V __attribute__((vector_size(CHARLM_VECTOR_BYTES)));
  typedef double Loose __attribute__((vector_size(CHARLM_VECTOR_BYTES), aligned(8), may_alias));
  typedef long long I __attribute__((vector_size(CHARLM_VECTOR_BYTES)));
};

template <class T>
using Vec = typename Lanes<T>::V;

// Elements of T in one vector register.
template <class T>
constexpr int kLanes = CHARLM_VECTOR_BYTES / static_cast<int>(sizeof(T));

template <class T>
CHARLM_INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename Lanes<T>::Loose*>(p);
}

template <class T>
CHARLM_INLINE void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename Lanes<T>::Loose*>(p) = v;
}

template <class T>
CHARLM_INLINE Vec<T> splat(T s) {
  return Vec<T>{} + s;
}

// The first n lanes from memory, zero in the rest: the edge of a row.
template <class T>
CHARLM_INLINE Vec<T> load_n(const T* p, int n) {
  if (n >= kLanes<T>) return load(p);
  T lanes[kLanes<T>] = {};
  for (int k = 0; k < n; ++k) lanes[k] = p[k];
  return load(lanes);
}

template <class T>
CHARLM_INLINE void store_n(T* p, Vec<T> v, int n) {
  if (n >= kLanes<T>) return store(p, v);
  T lanes[kLanes<T>];
  store(lanes, v);
  for (int k = 0; k < n; ++k) p[k] = lanes[k];
}

}  // namespace CHARLM_ISA
}  // namespace charlm
