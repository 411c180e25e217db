// The tables of single steps' kernels, for the instruction set whose region the including file
// opened.
#pragma once

#include "cpu/isa/kernels.h"
#include "cpu/steps/step.h"

namespace charlm {
namespace CHARLM_ISA {

template <class T>
constexpr StepKernels<T> make_step_kernels() {
  return {step<T>, step_backward<T>, add_up_rows<T>, outer_rows<T>};
}

extern const StepKernels<float> float_steps;
extern const StepKernels<double> double_steps;
const StepKernels<float> float_steps = make_step_kernels<float>();
const StepKernels<double> double_steps = make_step_kernels<double>();

}  // namespace CHARLM_ISA
}  // namespace charlm
