// The LSTM over a sequence on the CPU, as the binding sees it.
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
// need_input), dh0, dc0 and, with a projection, the gradient that reached it (L, N, R). overwrite:
// dgates take the place of the gates in the reserve, which is so used up; at the end of a graph
// that saves a fifth to a third of a training step's memory.
using RecurrentGradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;
RecurrentGradients lstm_backward(std::optional<Tensor> dy, std::optional<Tensor> dhn,
                                 std::optional<Tensor> dcn, int64_t input,
                                 std::optional<Tensor> batch_sizes, Tensor c0,
                                 std::vector<Tensor> weights, bool has_bias, bool has_proj,
                                 bool reverse, Tensor reserve, int64_t steps, bool need_input,
                                 bool overwrite);

// The whole gradient: dx, dh0, dc0 and by layer those of the weights (empty where not needed).
// x are the input rows, or with ids the embedding that layer 0 was folded into, whose gradient dx
// then is. overwrite: as for lstm_backward. seen: by layer the state that each row saw (N, R), or
// none where all rows have T steps.
using LstmGradients = std::tuple<Tensor, Tensor, Tensor, std::vector<Tensor>>;
LstmGradients lstm_gradients(std::optional<Tensor> dy, std::optional<Tensor> dhn,
                             std::optional<Tensor> dcn, Tensor x, std::optional<Tensor> ids,
                             std::optional<Tensor> batch_sizes, std::vector<Tensor> seen, Tensor h0,
                             Tensor c0, std::vector<Tensor> weights, bool has_bias, bool has_proj,
                             bool reverse, Tensor y, Tensor reserve, bool need_input,
                             bool need_weights, bool overwrite);

}  // namespace charlm
