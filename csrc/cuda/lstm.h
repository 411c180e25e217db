// The CUDA operations as the binding sees them: arguments and results as in cpu/lstm/lstm.h.
//
// Storage may be float, double, bfloat16 or half; for the last two all sums, the running cell
// state and its gradient are float. What the reserve and the results hold is rounded to the
// storage type, cells included, so that every backend reads every backend's reserve.
//
// Nothing here synchronises or reads device memory from the host (batch_sizes lives on the
// host), so a call can be captured in a CUDA graph. Ids out of range stop the kernel with a
// sentence on stdout, as torch.nn.Embedding does.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace charlm {
namespace cuda {

using torch::stable::Tensor;

std::tuple<Tensor, Tensor, Tensor, Tensor> lstm_forward(Tensor x, std::optional<Tensor> ids,
                                                        std::optional<Tensor> batch_sizes,
                                                        Tensor h0, Tensor c0,
                                                        std::vector<Tensor> weights, bool has_bias,
                                                        bool has_proj, bool reverse, bool save);

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> lstm_backward(
    std::optional<Tensor> dy, std::optional<Tensor> dhn, std::optional<Tensor> dcn, int64_t input,
    std::optional<Tensor> batch_sizes, Tensor c0, std::vector<Tensor> weights, bool has_bias,
    bool has_proj, bool reverse, Tensor reserve, int64_t steps, bool need_input);

// The same, where float may be multiplied in TF32 by the kernels that run all steps: which of
// torch's switches allows it is read in charlm_fast/kernels/precision.py. Products outside of
// them are torch's, by its own.
std::tuple<Tensor, Tensor, Tensor, Tensor> lstm_forward_tf32(
    Tensor x, std::optional<Tensor> ids, std::optional<Tensor> batch_sizes, Tensor h0, Tensor c0,
    std::vector<Tensor> weights, bool has_bias, bool has_proj, bool reverse, bool save);
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> lstm_backward_tf32(
    std::optional<Tensor> dy, std::optional<Tensor> dhn, std::optional<Tensor> dcn, int64_t input,
    std::optional<Tensor> batch_sizes, Tensor c0, std::vector<Tensor> weights, bool has_bias,
    bool has_proj, bool reverse, Tensor reserve, int64_t steps, bool need_input);

// Which kernel runs the steps of a layer of such sizes, for the dtype and device of `like`.
std::string lstm_plan(Tensor like, int64_t hidden, int64_t batch, bool has_proj, bool packed,
                      bool backward, int64_t layers, bool tf32);

// Whether blocks of the kernels that run all steps may share a multiprocessor, from now on in this
// process: so that benchmarks/gpu_ticks.py measures what keeping them apart gains.
void lstm_stack(bool may);

Tensor segment_sum(Tensor rows, Tensor ids, int64_t segments);

// As in cpu/lstm/lstm.h.
std::tuple<Tensor, Tensor, Tensor, Tensor> linear_cross_entropy(Tensor x, Tensor weight,
                                                                std::optional<Tensor> bias,
                                                                Tensor targets, bool save);

}  // namespace cuda
}  // namespace charlm
