// Sampling and generation on the device as the binding sees them: arguments and results as in
// cpu/text/generation.h, with log-probabilities in float for bfloat16 and half. Nothing
// synchronises.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace charlm {
namespace cuda {

using torch::stable::Tensor;

std::tuple<Tensor, Tensor> sample(Tensor logits, Tensor temperature, int64_t top_k, double top_p,
                                  double floor, int64_t seed, int64_t offset);

std::tuple<Tensor, Tensor, Tensor, Tensor> generate(Tensor embedding, std::vector<Tensor> weights,
                                                    bool has_bias, Tensor head,
                                                    std::optional<Tensor> head_bias, Tensor h0,
                                                    Tensor c0, Tensor prompts, Tensor lengths,
                                                    int64_t length, Tensor temperature,
                                                    int64_t top_k, double top_p, double floor,
                                                    int64_t seed, int64_t offset);

// How `generate` would run a batch of such a model, for the dtype and device of `like`.
std::string generate_plan(Tensor like, int64_t hidden, int64_t inputs, int64_t layers,
                          int64_t vocabulary, int64_t batch, int64_t steps, bool top_p);

}  // namespace cuda
}  // namespace charlm
