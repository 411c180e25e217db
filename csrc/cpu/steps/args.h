// What one step of one LSTM layer hands to the kernels: plain pointers, no torch.
#pragma once

#include "cpu/isa/storage.h"

namespace charlm {

// B rows, I input columns, H hidden units; weights as torch.nn.LSTM holds them. A bias may be null.
template <class T>
struct StepWeights {
  i64 I, H;
  const T *w_ih, *w_hh;  // (4H, I), (4H, H)
  const T *b_ih, *b_hh;  // (4H)
};

template <class T>
struct StepArgs {
  StepWeights<T> weights;
  i64 B;
  const T* x;       // (B, I)
  const T* before;  // (B, H): h of the step before
  T* c;             // (B, H) running
  T* h;             // (B, H), not the memory of `before`
  T* gates;         // (B, 4H) activated, or null
};

template <class T>
struct StepBackwardArgs {
  i64 B, H;
  const T* dh;      // (B, H), or null for zeros
  T* dc;            // (B, H) running: of c in, of the step before's c out
  const T* gates;   // (B, 4H)
  const T* c;       // (B, H)
  const T* before;  // (B, H): c of the step before
  T* dgates;        // (B, 4H)
};

// Rows of a batch whose outer products are added up as they are written.
constexpr int kOuterRows = 4;

}  // namespace charlm
