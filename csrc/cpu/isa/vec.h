// Vector types of one instruction set, through GCC/Clang vector extensions.
//
// A translation unit fixes CHARLM_ISA (a namespace name) and CHARLM_VECTOR_BYTES
// before including this header, after any `#pragma ... target`. Memory may hold another type S
// than registers, which hold Compute<S>. Nothing here may
// include a standard header: an inline function of the standard library compiled for
// AVX-512 could be the copy that the linker keeps for machines that lack it.
#pragma once

#include "cpu/isa/storage.h"

#define CHARLM_INLINE inline __attribute__((always_inline))

// A product that leaves a tile of sums. On NEON a function of its own: inlined, the constants of
// the activations that follow take registers, and the loop spills sums.
#if defined(CHARLM_NEON)
#define CHARLM_PRODUCT __attribute__((noinline))
#else
#define CHARLM_PRODUCT CHARLM_INLINE
#endif

// Keeps a vector that is used several times in a register: a compiler may find it cheaper to load
// it anew at each use, where loads are what there is too little of.
#if defined(__x86_64__)
#define CHARLM_KEEP(vector) __asm__("" : "+v"(vector))
#elif defined(__aarch64__)
#define CHARLM_KEEP(vector) __asm__("" : "+w"(vector))
#else
#define CHARLM_KEEP(vector) ((void)0)
#endif

namespace charlm {
namespace CHARLM_ISA {

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

// Values in one vector register.
template <class S>
constexpr int kLanes = CHARLM_VECTOR_BYTES / static_cast<int>(sizeof(Compute<S>));

template <class T>
CHARLM_INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename Lanes<T>::Loose*>(p);
}

template <class T>
CHARLM_INLINE void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename Lanes<T>::Loose*>(p) = v;
}

// Subtracting 0 leaves every number as it is, -0 too, and so costs nothing; adding 0 would not.
template <class T>
CHARLM_INLINE Vec<T> splat(T s) {
  return s - Vec<T>{};
}

// A product takes kDepth<S> values of K at once, as one word of the size of Compute<S>: the one
// value, or several that the instruction multiplies and sums in pairs.
template <class S>
constexpr int kDepth = 1;

template <class T>
CHARLM_INLINE Vec<T> load_words(const T* p) {
  return load(p);
}

template <class T>
CHARLM_INLINE void store_words(T* p, Vec<T> v) {
  store(p, v);
}

#if !defined(CHARLM_NEON)
template <class T>
CHARLM_INLINE Vec<T> splat_word(const T* p) {
  return splat(*p);
}
#endif

// sum + a * b by words. The first argument only says what the words hold.
template <class T>
CHARLM_INLINE Vec<T> multiply_add(const T*, Vec<T> sum, Vec<T> a, Vec<T> b) {
  return sum + a * b;
}

}  // namespace CHARLM_ISA
}  // namespace charlm

#if defined(CHARLM_BF16)
#include "cpu/isa/vec_bf16.h"
#endif
#if defined(CHARLM_NEON)
#include "cpu/isa/vec_neon.h"
#endif

namespace charlm {
namespace CHARLM_ISA {

#if !defined(CHARLM_NEON)
// The first n lanes from memory, zero in the rest: the edge of a row.
template <class S>
CHARLM_INLINE Vec<Compute<S>> load_n(const S* p, int n) {
  if (n >= kLanes<S>) return load(p);
  S lanes[kLanes<S>] = {};
  for (int k = 0; k < n; ++k) lanes[k] = p[k];
  return load(lanes);
}

template <class S>
CHARLM_INLINE void store_n(S* p, Vec<Compute<S>> v, int n) {
  if (n >= kLanes<S>) return store(p, v);
  S lanes[kLanes<S>];
  store(lanes, v);
  for (int k = 0; k < n; ++k) p[k] = lanes[k];
}
#endif

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define CHARLM_HAS_SHUFFLE
#endif
#endif

#if defined(CHARLM_HAS_SHUFFLE)
template <int... I>
struct LaneList {};

template <int N, int... I>
struct MakeLanes : MakeLanes<N - 1, N - 1, I...> {};
template <int... I>
struct MakeLanes<0, I...> {
  using type = LaneList<I...>;
};

// a[first] b[first] a[first + 1] b[first + 1] ...
template <class T, int First, int... I>
CHARLM_INLINE Vec<T> interleave(Vec<T> a, Vec<T> b, LaneList<I...>) {
  return __builtin_shufflevector(a, b, (First + I / 2 + I % 2 * kLanes<T>)...);
}

// rows[i][k] becomes rows[k][i]: interleaving row i with row i + L / 2, log2 L times.
template <class T>
CHARLM_INLINE void transpose(Vec<T> (&rows)[kLanes<T>]) {
  constexpr int L = kLanes<T>;
  using Lanes = typename MakeLanes<L>::type;
#pragma GCC unroll 4
  for (int stage = 1; stage < L; stage *= 2) {
    Vec<T> next[L];
#pragma GCC unroll 8
    for (int i = 0; i < L / 2; ++i) {
      next[2 * i] = interleave<T, 0>(rows[i], rows[i + L / 2], Lanes{});
      next[2 * i + 1] = interleave<T, L / 2>(rows[i], rows[i + L / 2], Lanes{});
    }
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) rows[i] = next[i];
  }
}
#endif

}  // namespace CHARLM_ISA
}  // namespace charlm
