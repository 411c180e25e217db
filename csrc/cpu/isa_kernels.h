// Fills the kernel table of the instruction set that the including file has chosen.
#pragma once

#include "cross_entropy.h"
#include "generate.h"
#include "outer_products.h"
#include "sample.h"
#include "sequence_kernels.h"
#include "step.h"

namespace charlm {
namespace CHARLM_ISA {

template <class T>
constexpr Kernels<T> make_kernels() {
  return {make_sequence_kernels<T>(),
          outer_products<T>,
          step<T>,
          step_backward<T>,
          add_up_rows<T>,
          outer_rows<T>,
          cross_entropy_rows<T>,
          sample_rows<T>,
          project_rows<T>,
          generate_rows<T>};
}

extern const Kernels<float> float_kernels;
extern const Kernels<double> double_kernels;
const Kernels<float> float_kernels = make_kernels<float>();
const Kernels<double> double_kernels = make_kernels<double>();

}  // namespace CHARLM_ISA
}  // namespace charlm
