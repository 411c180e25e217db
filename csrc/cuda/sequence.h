// The persistent LSTM kernels as raw pointers and sizes; see kernels.h for T and C.
#pragma once

#include "kernels.h"
#include "plan.h"

namespace charlm {
namespace cuda {

// One layer of a launch. What lies below it is the layer before it there.
struct ForwardLayer {
  const void* weights;  // T (4H, H): W_hh
  const void* inputs;   // T (4H, H): W_ih, unread in the first layer
  const void* bias;     // T (4H) or null
  void* hidden;         // T (steps B, H) or null
  void* gates;          // T (steps B, 4H) or null: activated
  void* cells;          // T (steps B, H) or null
};

struct SequenceForward {
  i64 steps, B, H;
  bool reverse;
  const void* pre;  // C: input products of the first layer, row r, or with ids row ids[r]
  const i64* ids;   // (steps B) or null
  void* h;          // T (layers, B, H): initial, becomes the last
  void* c;          // C (layers, B, H): cell state, updated
  void* exchange;   // as many C as the plan says; of tensor cores, T lie there
  ForwardLayer layer[kMaxLayers];
};

struct BackwardLayer {
  const void* weights;  // T (4H, H): W_hh
  const void* inputs;   // T (4H, H): W_ih, unread in the first layer
  const void* gates;    // T (steps B, 4H)
  const void* cells;    // T (steps B, H)
  void* dgates;         // T (steps B, 4H): before activation
};

struct SequenceBackward {
  i64 steps, B, H;
  bool reverse;
  const void* dy;     // T (steps B, H), of the last layer, or null
  const void* first;  // T (layers, B, H): initial cells
  void* dh;           // C (layers, B, H): gradient of the last h, becomes that of the initial one
  void* dc;           // C (layers, B, H): likewise of the cell state
  void* exchange;     // C: as many as the plan says
  BackwardLayer layer[kMaxLayers];
};

// Facts of the current device; 0 or a CUDA error code. Asks the driver once a device.
int device_facts(DeviceFacts* facts);

int launch_lstm_sequence_forward(DType dtype, const SequencePlan& plan, const SequenceForward& args,
                                 void* stream);
int launch_lstm_tensor_forward(DType dtype, const SequencePlan& plan, const SequenceForward& args,
                               void* stream);
int launch_lstm_sequence_backward(DType dtype, const SequencePlan& plan,
                                  const SequenceBackward& args, void* stream);
int launch_lstm_tensor_backward(DType dtype, const SequencePlan& plan, const SequenceBackward& args,
                                void* stream);

}  // namespace cuda
}  // namespace charlm
