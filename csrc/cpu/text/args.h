// What sampling and generation hand to the kernels of one instruction set: plain data, no torch,
// no standard library, and the scalar parts that are compiled for the baseline machine.
#pragma once

#include "common/sampling.h"
#include "cpu/isa/storage.h"

namespace charlm {

struct Candidate {
  double x, weight;
};

// Logits whose weights are in fast memory at one time.
constexpr i64 kSampleBlock = 512;

CHARLM_ALWAYS i64 padded_row(i64 V) { return (V + 15) / 16 * 16; }

// Doubles of scratch that one draw needs: a block of weights, their sums by block, and for
// filters that rank, x and weight of all logits and the candidates.
CHARLM_ALWAYS i64 draw_scratch(i64 V, const Sampling& s) {
  const i64 blocks = (V + kSampleBlock - 1) / kSampleBlock;
  return kSampleBlock + padded_row(blocks) + (s.ranks(V) ? 4 * padded_row(V) : 0);
}

double draw_uniform(i64 seed, i64 offset, i64 row);

// The least x that top_k and top_p keep; `c` is scratch for n candidates.
double rank_floor(const double* x, const double* weight, i64 n, const Sampling& s, Candidate* c);

template <class T>
struct GenerateArgs {
  i64 V, E, H, L, B;
  const T* embedding;       // (V, E)
  const T* table;           // (V, padded gates): embedding @ w_ih^T + bias of layer 0, or null
  const T* first;           // else layer 0's w_ih, packed
  const T* const* weights;  // by layer, packed: w_hh at layer 0, [w_ih w_hh] above it
  const T* const* bias;     // by layer: (padded gates)
  const T* head;            // packed (H, V)
  const T* head_bias;       // (padded V)
  i64 length;
  const i64* prompts;         // (S, B), of which row b has its first lengths[b]
  const i64* lengths;         // (B), at least 1
  const double* temperature;  // (B)
  Sampling sampling;
  T* h;         // (L, B, H) running: initial in, final out
  T* c;         // (L, B, H)
  i64* ids;     // (length, B)
  T* logprobs;  // (length, B)
};

}  // namespace charlm
