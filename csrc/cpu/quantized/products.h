// Rows of activations to int8, and their products with matrices of int8.
//
//   q = round(x / s);   out = bias + s scale (q . w)
//
// s is the least for which the magnitudes of the values 0 1 4 5 of eight, and of 2 3 6 7, sum to at
// most 126, and so to 128 once rounded: a value that stands out takes 7 bits and a sign, values
// that are all alike 5, and AVX2 can add two sums of pairs in 16 bits (isa/dot.h).
//
// A strip of weights passes once for all rows, in tiles of kDotRows rows x kDotVectors vectors of
// sums: bound by the multipliers. One row, which uses a weight once, meets kDotBeside strips side
// by side, as many streams: bound by the cache that holds the weights, more than by the
// multipliers.
#pragma once

#include "cpu/isa/dot.h"
#include "cpu/isa/panels.h"
#include "cpu/quantized/args.h"

namespace charlm {
namespace CHARLM_ISA {

constexpr float kGroupSum = 126;

// Values first .. first + L of a row of K, zero past its end.
CHARLM_INLINE Vec<float> load_part(const float* row, i64 first, i64 K) {
  const i64 left = K - first;
  if (left >= kLanes<float>) return load(row + first);
  return left > 0 ? load_n(row + first, static_cast<int>(left)) : Vec<float>{};
}

typedef float Magnitudes __attribute__((vector_size(32)));
typedef int MagnitudeBits __attribute__((vector_size(32)));

// |x| of eight values from `first` on, zero past the end.
CHARLM_INLINE void load_magnitudes(const float* row, i64 first, i64 K, Magnitudes& m) {
  m = Magnitudes{};
  const i64 left = K - first;
  if (left >= 8)
    __builtin_memcpy(&m, row + first, sizeof(m));
  else
    for (i64 k = 0; k < left; ++k) m[k] = row[first + k];
  m = reinterpret_cast<Magnitudes>(reinterpret_cast<MagnitudeBits>(m) & 0x7fffffff);
}

// The largest sum of four magnitudes in a row, as above; NaN where a value is not finite. Floats
// without a sign are ordered as integers, NaN above infinity above all else.
CHARLM_INLINE float largest_group(const float* x, i64 K) {
  MagnitudeBits most = {};
  for (i64 k = 0; k < K; k += 8) {
    Magnitudes m;
    load_magnitudes(x, k, K, m);
#if defined(CHARLM_HAS_SHUFFLE)
    const Magnitudes halves = m + __builtin_shufflevector(m, m, 4, 5, 6, 7, 0, 1, 2, 3);
    const Magnitudes sums =
        halves + __builtin_shufflevector(halves, halves, 1, 0, 3, 2, 5, 4, 7, 6);
#else
    Magnitudes sums = {};
    for (int g = 0; g < 4; g += 2) sums[g] = (m[g] + m[g + 4]) + (m[g + 1] + m[g + 5]);
#endif
    const MagnitudeBits bits = reinterpret_cast<MagnitudeBits>(sums);
    most = bits > most ? bits : most;
  }
  int top = 0;
  for (int lane = 0; lane < 8; ++lane) top = most[lane] > top ? most[lane] : top;
  if (top >= 0x7f800000) top = 0x7fc00000;
  float out;
  __builtin_memcpy(&out, &top, sizeof(out));
  return out;
}

// Rows `stride` apart. A row of zeros has the scale 0, one that is not finite the scale NaN.
inline void quantize_rows(const float* x, i64 stride, i64 rows, i64 K, const Int8Rows& to) {
  constexpr int L = kLanes<float>;
  for (i64 r = 0; r < rows; ++r, x += stride) {
    const float most = largest_group(x, K);
    // Below 1e-36 the quotient would be infinite; such values are zeros to any sum.
    const float inverse = most > 1e-36f ? kGroupSum / most : 0.0f;
    to.scale[r] = most * (1.0f / kGroupSum);
    signed char* row = to.values + r * activation_stride(K);
    Int sums = {};
    for (i64 k = 0; k < int8_words(K) * kWord; k += L) {
      const Int q = nearest(load_part(x, k, K) * inverse);
      sums += q;
      store_narrow(row + k, q);
    }
    int sum = 0;
    for (int lane = 0; lane < L; ++lane) sum += sums[lane];
    to.sum[r] = sum;
  }
}

// sum[r][s][v] = a[r] . vector v of strip s, for MR rows and S strips, one behind the other.
template <int MR, int S>
CHARLM_INLINE void multiply_words(Sum (&sum)[MR][S][kDotVectors], const signed char* a, i64 stride,
                                  const signed char* strips, i64 words) {
  constexpr int W = CHARLM_VECTOR_BYTES, NV = kDotVectors;
  const i64 size = words * NV * W;
  Sum acc[MR][S][NV] = {};
  for (i64 k = 0; k < words; k += 2, strips += 2 * NV * W) {
    Word word[MR][2];
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) {
      word[r][0] = load_word(a + r * stride + k * kWord);
      word[r][1] = load_word(a + r * stride + (k + 1) * kWord);
    }
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        const signed char* from = strips + s * size + v * W;
        const Bytes w0 = load_bytes(from), w1 = load_bytes(from + NV * W);
#pragma GCC unroll 8
        for (int r = 0; r < MR; ++r) add_products(acc[r][s][v], word[r], w0, w1);
      }
  }
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) sum[r][s][v] = acc[r][s][v];
}

// The results of a sum of row r, for L columns from `column` on.
CHARLM_INLINE void put_int8(const Sum& sum, const Int8Rows& a, i64 r, const Int8Matrix& m,
                            i64 column, const Int8Product& to) {
  constexpr int L = kLanes<float>;
  const Int exact = total(sum) - kWeightOffset * a.sum[r];
  const Vec<float> product =
      __builtin_convertvector(exact, Vec<float>) * (load(m.scale + column) * a.scale[r]);
  float* out = to.out + r * to.stride + column;
  if (to.padded)
    store(out, product + load(to.add ? out : m.bias + column));
  else if (column < m.N)
    store_n(out, product + load(m.bias + column),
            m.N - column < L ? static_cast<int>(m.N - column) : L);
}

// S strips from the one `strip` on, for MR rows from `first` on.
template <int MR, int S>
CHARLM_INLINE void multiply_strips(const Int8Rows& a, i64 first, const Int8Matrix& m, i64 strip,
                                   const Int8Product& to) {
  constexpr int NV = kDotVectors, width = NV * kLanes<float>;
  const i64 stride = activation_stride(m.K), words = int8_words(m.K);
  Sum sum[MR][S][NV];
  multiply_words<MR, S>(sum, a.values + first * stride, stride,
                        m.words + strip * words * kWord * width, words);
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v)
        put_int8(sum[r][s][v], a, first + r, m, (strip + s) * width + v * kLanes<float>, to);
}

// Panels [p0, p1) for all rows.
inline void multiply_int8(const Int8Rows& a, i64 rows, const Int8Matrix& m, i64 p0, i64 p1,
                          const Int8Product& to) {
  constexpr int each = kPanelVectors / kDotVectors;  // strips of a panel
  const i64 beside = rows == 1 ? kDotBeside : each;
  for (i64 left = (p1 - p0) * each; left > 0;) {
    const i64 count = left < beside ? left : beside;
    const i64 strip = to.down ? p0 * each + left - count : p1 * each - left;
    left -= count;
    if (rows == 1) {
      if (count == kDotBeside)
        multiply_strips<1, kDotBeside>(a, 0, m, strip, to);
      else
        multiply_strips<1, each>(a, 0, m, strip, to);
      continue;
    }
#pragma GCC unroll 1
    for (int s = 0; s < each; ++s) {
      const auto tile = [&](auto size, i64 first) __attribute__((always_inline)) {
        multiply_strips<decltype(size)::value, 1>(a, first, m, strip + s, to);
      };
      i64 r = 0;
      for (; r + kDotRows <= rows; r += kDotRows) tile(RowCount<kDotRows>{}, r);
      rest_of_rows<kDotRows - 1>(rows - r, r, tile);
    }
  }
}

}  // namespace CHARLM_ISA
}  // namespace charlm
