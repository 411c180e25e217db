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

// x (N, H), weight (V, H), bias (V), targets (N). Returns the summed loss and its gradients by x,
// weight and bias (empty unless save).
using HeadResult = std::tuple<Tensor, Tensor, Tensor, Tensor>;
HeadResult linear_cross_entropy(Tensor x, Tensor weight, std::optional<Tensor> bias, Tensor targets,
                                bool save);

// A language model's summed loss. weights: by layer w_ih, w_hh, b_ih, b_hh; ids, targets (T, B).
// Returns loss, h_n, c_n and what backward needs.
using LossResult = std::tuple<Tensor, Tensor, Tensor, std::vector<Tensor>>;
LossResult lstm_loss(Tensor embedding, std::vector<Tensor> weights, Tensor head, Tensor head_bias,
                     Tensor h0, Tensor c0, Tensor ids, Tensor targets);

// Gradients of embedding, h0, c0, head, head_bias and weights (empty where not needed).
std::vector<Tensor> lstm_loss_backward(std::optional<Tensor> dloss, std::optional<Tensor> dhn,
                                       std::optional<Tensor> dcn, Tensor embedding,
                                       std::vector<Tensor> weights, Tensor h0, Tensor c0,
                                       Tensor ids, std::vector<Tensor> saved, bool need_input,
                                       bool need_weights, bool overwrite);

// Sum of rows by id: out[v] = sum of rows n with ids[n] == v. (N, C), (N) -> (V, C).
Tensor segment_sum(Tensor rows, Tensor ids, int64_t segments);

// logits (N, V) become the gradient of the summed loss (or scratch); returns the loss by row.
Tensor cross_entropy_(Tensor logits, Tensor targets, bool gradient);

}  // namespace charlm
