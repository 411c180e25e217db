// Losses on the CPU and the row operations around them, as the binding sees them.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

namespace charlm {

using torch::stable::Tensor;

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
