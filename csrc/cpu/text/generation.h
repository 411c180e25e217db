// Sampling and generation on the CPU as the binding sees them.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

#include "cpu/text/args.h"

namespace charlm {

using torch::stable::Tensor;

// logits (N, V), temperature (N) in double; top_k 0 and top_p 1 filter nothing, logits scaled
// below `floor` under the largest are dropped. Returns ids (N), negative where the row's logits
// allow no draw (see sample_args.h), and their log-probabilities (N).
std::tuple<Tensor, Tensor> sample(Tensor logits, Tensor temperature, int64_t top_k, double top_p,
                                  double floor, int64_t seed, int64_t offset);

// The same on this thread, for memory laid out as `sample` has it and one temperature, past torch's
// dispatcher, which takes longer than a row of 100 logits. Returns the first row that allowed no
// draw, or their number.
struct FewRows {
  bool is_double;
  const void* logits;  // (count, V)
  int64_t count, V;
  double temperature;
  int64_t* ids;    // (count)
  void* logprobs;  // (count), or null
};

int64_t sample_few(const FewRows& rows, Sampling sampling);

// Continues B texts by `length` characters. prompts (S, B) with row b's ids in its first
// lengths[b]; weights by layer w_ih, w_hh and bias if has_bias; head (V, H). Returns ids
// (length, B), negative from where a row allows no draw, their log-probabilities (length, B),
// and h and c (L, B, H) after all characters but the last.
std::tuple<Tensor, Tensor, Tensor, Tensor> generate(Tensor embedding, std::vector<Tensor> weights,
                                                    bool has_bias, Tensor head,
                                                    std::optional<Tensor> head_bias, Tensor h0,
                                                    Tensor c0, Tensor prompts, Tensor lengths,
                                                    int64_t length, Tensor temperature,
                                                    int64_t top_k, double top_p, double floor,
                                                    int64_t seed, int64_t offset);

}  // namespace charlm
