// The tables of the kernels of logits, draws and texts, for the instruction set whose region the
// including file opened.
#pragma once

#include "cpu/isa/kernels.h"
#include "cpu/text/cross_entropy.h"
#include "cpu/text/generate.h"
#include "cpu/text/sample.h"

namespace charlm {
namespace CHARLM_ISA {

template <class T>
constexpr TextKernels<T> make_text_kernels() {
  return {cross_entropy_rows<T>, sample_rows<T>, project_rows<T>, generate_rows<T>};
}

extern const TextKernels<float> float_text;
extern const TextKernels<double> double_text;
const TextKernels<float> float_text = make_text_kernels<float>();
const TextKernels<double> double_text = make_text_kernels<double>();

}  // namespace CHARLM_ISA
}  // namespace charlm
