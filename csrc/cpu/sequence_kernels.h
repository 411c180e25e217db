// The LSTM's kernels for one type, of the instruction set that the including file has chosen.
#pragma once

#include "lstm_backward.h"
#include "lstm_forward.h"

namespace charlm {
namespace CHARLM_ISA {

template <class S>
constexpr SequenceKernels<S> make_sequence_kernels() {
  return {kLanes<S>,     kPanelWidth<S>,     kDepth<S>,       pack_gate_panel<S>, pack_gate_bias<S>,
          pack_panel<S>, multiply_panels<S>, forward_task<S>, backward_task<S>};
}

}  // namespace CHARLM_ISA
}  // namespace charlm
