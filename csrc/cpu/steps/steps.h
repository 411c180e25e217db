// Few steps of an LSTM as the binding sees them: in memory laid out as torch.nn.LSTM has it, for
// calls past torch's dispatcher, which takes longer than such a step.
#pragma once

#include <cstdint>

namespace charlm {

// w_ih (4H, I), w_hh (4H, H), b_ih and b_hh (4H) or null.
struct CellWeights {
  const void *w_ih, *w_hh, *b_ih, *b_hh;
};

// T steps of L layers of H units, B rows.
struct Steps {
  bool is_double;
  int64_t L, T, B, I, H;
  const void *x, *h_0, *c_0;   // (T, B, I), (L, B, H) twice
  void *y, *h_n, *c_n;         // (T, B, H) or null, (L, B, H) twice
  void* gates;                 // (B, 4H) activated gates of a cell (L = T = 1), or null
  const CellWeights* weights;  // by layer
};

// On one thread a single step allocates nothing and waits for nothing.
void lstm_steps(const Steps& steps);

// The gradients of a cell. Where a pointer to write to is null, nothing is computed for it, of the
// weights' all or none; db_ih and db_hh are null without biases.
struct CellGradients {
  bool is_double;
  int64_t B, I, H;
  const void *dh, *dc;        // (B, H), or null for zeros
  const void *x, *h_0, *c_0;  // (B, I), (B, H) twice
  const void *gates, *c;      // as lstm_steps left them: (B, 4H), (B, H)
  CellWeights weights;
  void *dx, *dh_0, *dc_0;  // dc_0 is needed
  void *dw_ih, *dw_hh, *db_ih, *db_hh;
};

void lstm_cell_backward(const CellGradients& gradients);

}  // namespace charlm
