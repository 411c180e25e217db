// Sampling and generation on the device as raw pointers and sizes; see kernels.h for T and C.
#pragma once

#include "../common/sampling.h"
#include "kernels.h"
#include "text_plan.h"

namespace charlm {
namespace cuda {

struct SampleRows {
  i64 rows, V;
  const void* logits;         // T (rows, V)
  const double* temperature;  // (rows)
  Sampling sampling;
  i64* ids;        // (rows), negative where the row's logits allow no draw
  void* logprobs;  // C (rows)
};

struct GenerateText {
  i64 V, E, H, L, B;
  i64 prompt_steps, length;
  const void* table;      // C (V, 4H): embedding times layer 0's w_ih, or null
  const void* embedding;  // T (V, E) where there is no table
  // By layer T (4H, text_columns): w_ih, with no table at layer 0 too, and w_hh side by side, each
  // padded with zeros; then the head (padded V, padded H).
  const void* weights;
  const void* bias;           // T (L, 4H) or null
  const void* head_bias;      // T (V) or null
  const i64* prompts;         // (prompt_steps, B), of which row b has its first lengths[b]
  const i64* lengths;         // (B), at least 1
  const double* temperature;  // (B)
  Sampling sampling;
  void* hidden;    // C (2, L, B, H): the state in turn, before the first step in the first
  void* cells;     // C (L, B, H): updated
  void* logits;    // C (B, V): scratch
  i64* ids;        // (length, B)
  void* logprobs;  // C (length, B)

  i64 steps() const { return prompt_steps - 1 + length; }
};

int launch_sample(DType dtype, const SampleRows& args, void* stream);
int launch_generate(DType dtype, const TextPlan& plan, const GenerateText& args, void* stream);

}  // namespace cuda
}  // namespace charlm
