// The CPU operations as the binding sees them.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

namespace charlm {

using torch::stable::Tensor;

// x (T, B, I), or with batch_sizes (N, I), or with ids of either shape an embedding (V, I).
// weights: by layer w_ih (4H, I), w_hh (4H, R), bias (4H) if has_bias, w_hr (R, H) if has_proj.
// Returns y, h_n, c_n and the reserve for the backward pass (empty unless save), flat:
// gates (L, N, 4H), cells (L, N, H), y of the lower layers (L - 1, N, R), with a projection
// the unprojected outputs (L, N, H).
std::tuple<Tensor, Tensor, Tensor, Tensor> lstm_forward(Tensor x, std::optional<Tensor> ids,
                                                        std::optional<Tensor> batch_sizes,
                                                        Tensor h0, Tensor c0,
                                                        std::vector<Tensor> weights, bool has_bias,
                                                        bool has_proj, bool reverse, bool save);

// The recurrent part of the gradient. Returns dgates (L, N, 4H), dx (N, I; empty unless
// need_input), dh0, dc0 and, with a projection, the gradient that reached it (L, N, R).
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> lstm_backward(
    std::optional<Tensor> dy, std::optional<Tensor> dhn, std::optional<Tensor> dcn, int64_t input,
    std::optional<Tensor> batch_sizes, Tensor c0, std::vector<Tensor> weights, bool has_bias,
    bool has_proj, bool reverse, Tensor reserve, int64_t steps, bool need_input);

// Sum of rows of gates by id: out[v] = sum of rows n with ids[n] == v. (N, C), (N) -> (V, C).
Tensor segment_sum(Tensor rows, Tensor ids, int64_t segments);

// logits (N, V) become the gradient of the summed loss (or scratch); returns the loss by row.
Tensor cross_entropy_(Tensor logits, Tensor targets, bool gradient);

}  // namespace charlm
