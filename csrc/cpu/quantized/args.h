// What an LSTM of 8-bit weights hands to the kernels of one instruction set: plain pointers and
// sizes, no torch.
#pragma once

#include "cpu/isa/storage.h"

namespace charlm {

// A matrix (N, K) of int8, a scale a row, in panels of four vectors of its rows: column v of panel
// p is row p * 4 L + v L + lane, or of gates row v * H + p L + lane, with L lanes. A panel is cut
// into strips of S vectors, kDotVectors of isa/dot.h; a strip holds words of four values of K,
// vector after vector, padded to pairs of words.
struct Int8Matrix {
  i64 N, K, panels;
  const signed char* words;  // (panels, 4 / S, int8_words(K), S, L, 4)
  const float* scale;        // (panels * 4 L)
  const float* bias;         // (panels * 4 L)
};

constexpr i64 int8_words(i64 K) { return (K + 7) / 8 * 2; }

// Rows of activations as the kernels multiply them: int8 with one scale each.
struct Int8Rows {
  signed char* values;  // (rows, activation_stride(K)), zero past K
  float* scale;         // (rows)
  int* sum;             // (rows): of the values
};

constexpr i64 activation_stride(i64 K) { return (K + 63) / 64 * 64; }

// The results of a product, `stride` apart: bias + product, or where `add` what is there + product.
struct Int8Product {
  float* out;
  i64 stride;
  bool add;
  bool padded;  // whole panels; else N columns
  bool down;    // panels from the last to the first
};

struct Int8Cells {
  i64 H;
  const float* gates;  // (rows, gates_stride) in panels, before activation
  i64 gates_stride;
  float* c;  // (rows, H) running
  float* h;  // (rows, H)
};

}  // namespace charlm
