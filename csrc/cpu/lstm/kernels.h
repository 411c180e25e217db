// The tables of the LSTM's kernels, for the instruction set whose region the including file opened.
#pragma once

#include "cpu/isa/kernels.h"
#include "cpu/lstm/backward.h"
#include "cpu/lstm/forward.h"
#include "cpu/lstm/outer_products.h"

namespace charlm {
namespace CHARLM_ISA {

template <class S>
constexpr SequenceKernels<S> make_sequence_kernels() {
  constexpr int P = kPanelVectors, V = kStripVectors;
  constexpr i64 kNever = i64{1} << 62;
  return {kLanes<S>,
          kPanelWidth<S>,
          kDepth<S>,
          pack_gate_panel<S, P>,
          pack_gate_bias<S>,
          pack_panel<S, P>,
          kTall ? CHARLM_TILE_ROWS + 1 : kNever,
          pack_gate_panel<S, V>,
          kTall ? pack_gate_triple<S> : nullptr,
          pack_panel<S, V>,
          multiply_panels<S>,
          forward_task<S>,
          backward_task<S>};
}

#if defined(CHARLM_BF16)
extern const SequenceKernels<bf16> bf16_sequence;
const SequenceKernels<bf16> bf16_sequence = make_sequence_kernels<bf16>();
#else
extern const SequenceKernels<float> float_sequence;
extern const SequenceKernels<double> double_sequence;
const SequenceKernels<float> float_sequence = make_sequence_kernels<float>();
const SequenceKernels<double> double_sequence = make_sequence_kernels<double>();

extern const OuterKernels<float> float_outer;
extern const OuterKernels<double> double_outer;
const OuterKernels<float> float_outer = {outer_scratch<float>(), outer_products<float>};
const OuterKernels<double> double_outer = {outer_scratch<double>(), outer_products<double>};
#endif

}  // namespace CHARLM_ISA
}  // namespace charlm
