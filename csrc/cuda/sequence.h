// The persistent LSTM kernels as raw pointers and sizes; see kernels.h for T and C.
#pragma once

#include "kernels.h"
#include "plan.h"

namespace charlm {
namespace cuda {

struct SequenceForward {
  i64 steps, B, H;
  bool reverse;
  const void* weights;  // T (4H, H): W_hh
  const void* pre;      // C: input products, row r, or with ids row ids[r]
  const i64* ids;       // (steps B) or null
  const void* bias;     // T (4H) or null
  void* h;              // T (B, H): initial, becomes the last
  void* c;              // C (B, H): cell state, updated
  void* hidden;         // T (steps B, H)
  void* gates;          // T (steps B, 4H) or null: activated
  void* cells;          // T (steps B, H) or null
  void* exchange;       // C: as many as the plan says
};

struct SequenceBackward {
  i64 steps, B, H;
  bool reverse;
  const void* weights;  // T (4H, H): W_hh
  const void* dy;       // T (steps B, H) or null
  const void* gates;    // T (steps B, 4H)
  const void* cells;    // T (steps B, H)
  const void* first;    // T (B, H): initial cells
  void* dh;             // C (B, H): gradient of the last h, becomes that of the initial one
  void* dc;             // C (B, H): likewise of the cell state
  void* dgates;         // T (steps B, 4H): before activation
  void* exchange;       // C: as many as the plan says
};

// Facts of the current device; 0 or a CUDA error code. Asks the driver once a device.
int device_facts(DeviceFacts* facts);

int launch_lstm_sequence_forward(DType dtype, const SequencePlan& plan, const SequenceForward& args,
                                 void* stream);
int launch_lstm_sequence_backward(DType dtype, const SequencePlan& plan,
                                  const SequenceBackward& args, void* stream);

}  // namespace cuda
}  // namespace charlm
