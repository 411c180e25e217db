// The LSTM with 8-bit weights as the binding sees it.
//
// Weights are packed once, into one block of memory that a caller keeps. What lies where depends on
// the kernels in use: others, and calls of other sizes, throw std::runtime_error.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

namespace charlm {

using torch::stable::Tensor;

// weights by layer: w_ih (4H, I or R) in int8 and its scales (4H), w_hh (4H, R) and its scales, the
// bias (4H) if has_bias, w_hr (R, H) and its scales (R) if has_proj.
Tensor int8_pack(std::vector<Tensor> weights, bool has_bias, bool has_proj);

// weight (N, K) in int8, scale (N), bias (N).
Tensor int8_pack_linear(Tensor weight, Tensor scale, std::optional<Tensor> bias);

// One direction of L layers over T steps: B rows each, or batch_sizes[t] of N in all.
struct Int8Sequence {
  const void* packed;
  int64_t L, T, B, N, I, H, R;
  bool has_proj, reverse;
  const int64_t* batch_sizes;  // (T), or null
  const float *x, *h_0, *c_0;  // (N, I), (L, B, R), (L, B, H)
  float *y, *h_n, *c_n;        // (N, R), (L, B, R), (L, B, H)
};

void lstm_int8(const Int8Sequence& s);

// y (rows, N) = x (rows, K) weight^T + bias.
void linear_int8(const void* packed, int64_t rows, int64_t K, int64_t N, const float* x, float* y);

// As generate of text/generation.h, from packed layers with an embedding (V, E) and a packed head.
std::tuple<Tensor, Tensor, Tensor, Tensor> generate_int8(Tensor embedding, Tensor packed,
                                                         Tensor packed_head, Tensor h0, Tensor c0,
                                                         Tensor prompts, Tensor lengths,
                                                         int64_t length, Tensor temperature,
                                                         int64_t top_k, double top_p, double floor,
                                                         int64_t seed, int64_t offset);

// A number that differs between kernels whose packed weights do.
int64_t int8_layout();

}  // namespace charlm
