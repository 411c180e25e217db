// A sequence of an LSTM from tensors of Python.
#pragma once

#include "python/lstm_call.h"

namespace charlm {

// Of what was read: as the operation lstm_forward (csrc/cpu/lstm), without gradients.
Ran run_sequence(const Torch& torch, LstmCall& call, LstmResults& to);

}  // namespace charlm
