// Rows of a step's weights, x and h as vectors: along their columns, the last lanes alone, and sums
// over all lanes.
#pragma once

#include "cpu/isa/vec.h"
#include "cpu/steps/args.h"

namespace charlm {
namespace CHARLM_ISA {

// The last n of all lanes.
template <class T>
CHARLM_INLINE typename Lanes<T>::I last_lanes(i64 n) {
  using I = typename Lanes<T>::I;
  constexpr int L = kLanes<T>;
  T bits[2 * L] = {};
  __builtin_memset(bits + L, -1, sizeof(T) * L);
  return reinterpret_cast<I>(load(bits + n));
}

// meet(turn, at) for each vector of K columns in order, where at(row) are these columns of a row
// and `turn` is 1 for the second of two; before each two, ask(column).
template <class T, class Ask, class Meet>
CHARLM_INLINE void along_columns(i64 K, const Ask& ask, const Meet& meet) {
  using I = typename Lanes<T>::I;
  constexpr int L = kLanes<T>;
  const auto vector = [](i64 k) __attribute__((always_inline)) {
    return [k](const T* row) __attribute__((always_inline)) { return load(row + k); };
  };
  i64 k = 0;
  for (; k + 2 * L <= K; k += 2 * L) {
    ask(k);
    meet(0, vector(k));
    meet(1, vector(k + L));
  }
  if (k + L <= K) {
    meet(0, vector(k));
    k += L;
  }
  if (k < K && K >= L) {
    // The row's last vector, less what was met: a mask, as 0 times infinity would be NaN.
    const I rest = last_lanes<T>(K - k);
    meet(0, [&](const T* row) __attribute__((always_inline)) {
      return reinterpret_cast<Vec<T>>(reinterpret_cast<I>(load(row + K - L)) & rest);
    });
  } else if (k < K) {
    meet(0, [&](const T* row)
                __attribute__((always_inline)) { return load_n(row, static_cast<int>(K)); });
  }
}

// b_ih + b_hh, those that there are, of n places from `at` on.
template <class T>
CHARLM_INLINE Vec<T> bias_of(const StepWeights<T>& w, i64 at, int n) {
  Vec<T> b = {};
  if (w.b_ih) b += load_n(w.b_ih + at, n);
  if (w.b_hh) b += load_n(w.b_hh + at, n);
  return b;
}

#if defined(CHARLM_HAS_SHUFFLE)
// As interleave of isa/vec.h, within each half of the vectors: one instruction where such a vector
// is two of 16 bytes.
template <class T, int First, int... I>
CHARLM_INLINE Vec<T> interleave_halves(Vec<T> a, Vec<T> b, LaneList<I...>) {
  constexpr int L = kLanes<T>, H = L / 2;
  return __builtin_shufflevector(a, b, (I / H * H + First + I % H / 2 + I % 2 * L)...);
}

// Half `Half` of a, and behind it that of b.
template <class T, int Half, int... I>
CHARLM_INLINE Vec<T> halves_of(Vec<T> a, Vec<T> b, LaneList<I...>) {
  constexpr int L = kLanes<T>, H = L / 2;
  return __builtin_shufflevector(a, b, (Half * H + I % H + I / H * L)...);
}
#endif

// Lane u of the result is the sum of v[u]'s lanes. Overwrites v.
template <class T>
CHARLM_INLINE Vec<T> lane_sums(Vec<T> (&v)[kLanes<T>]) {
  constexpr int L = kLanes<T>;
#if defined(CHARLM_HAS_SHUFFLE)
  using Lanes = typename MakeLanes<L>::type;
#if CHARLM_VECTOR_BYTES == 32
#pragma GCC unroll 4
  for (int n = L / 2; n > 1; n /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i)
      v[i] = interleave_halves<T, 0>(v[i], v[i + n], Lanes{}) +
             interleave_halves<T, L / 4>(v[i], v[i + n], Lanes{});
  const Vec<T> low = interleave_halves<T, 0>(v[0], v[1], Lanes{});
  const Vec<T> high = interleave_halves<T, L / 4>(v[0], v[1], Lanes{});
  return halves_of<T, 0>(low, high, Lanes{}) + halves_of<T, 1>(low, high, Lanes{});
#else
#pragma GCC unroll 4
  for (int n = L / 2; n > 0; n /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i)
      v[i] =
          interleave<T, 0>(v[i], v[i + n], Lanes{}) + interleave<T, L / 2>(v[i], v[i + n], Lanes{});
  return v[0];
#endif
#else
  T sums[L] = {};
  for (int i = 0; i < L; ++i)
    for (int k = 0; k < L; ++k) sums[i] += v[i][k];
  return load(sums);
#endif
}

}  // namespace CHARLM_ISA
}  // namespace charlm
