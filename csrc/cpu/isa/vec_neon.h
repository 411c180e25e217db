// What NEON has in the place of vec.h's own: a row's value to multiply by, and the edge of a row.
#pragma once

namespace charlm {
namespace CHARLM_ISA {

// One value of a row, which the compiler multiplies by as lane 0 of its register: a load that
// spread it over all lanes would take a slot of the multiply-add units. The empty instruction keeps
// its place among the others (GCC moves nothing past it): loaded ahead of the sums, as a scheduler
// likes to, the values of six rows and 24 sums are more than 32 registers.
template <class T>
CHARLM_INLINE Vec<T> splat_word(const T* p) {
  T s = *p;
  __asm__ volatile("" : "+w"(s));
  return splat(s);
}

// Lane by lane: copies in a loop become calls of memcpy, and no vector register outlives a call, so
// that the sums of a tile would be in memory.
template <class T>
CHARLM_INLINE Vec<T> load_n(const T* p, int n) {
  if (n >= kLanes<T>) return load(p);
  Vec<T> v = {};
#pragma GCC unroll 4
  for (int k = 0; k < kLanes<T> - 1; ++k)
    if (k < n) v[k] = p[k];
  return v;
}

template <class T>
CHARLM_INLINE void store_n(T* p, Vec<T> v, int n) {
  if (n >= kLanes<T>) return store(p, v);
#pragma GCC unroll 4
  for (int k = 0; k < kLanes<T> - 1; ++k)
    if (k < n) p[k] = v[k];
}

}  // namespace CHARLM_ISA
}  // namespace charlm
