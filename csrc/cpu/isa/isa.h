// Chooses the instruction set at run time.
#pragma once

#include <string>
#include <vector>

#include "cpu/isa/kernels.h"

namespace charlm {

// Instruction sets of this build that this machine runs, fastest first.
std::vector<std::string> available_isas();

// The one in use: the fastest, or the one set by set_isa.
std::string current_isa();

// Throws std::invalid_argument for a name that is not available here.
void set_isa(const std::string& name);

template <class T>
const Kernels<T>& kernels();

// bf16 too, for which it throws std::runtime_error unless the instruction set has it.
template <class S>
const SequenceKernels<S>& sequence_kernels() {
  return kernels<S>();
}
template <>
const SequenceKernels<bf16>& sequence_kernels<bf16>();

// Of 8-bit weights. Beside the AVX-512 kernels there are those of AVX512_VNNI, or of AVX2 where the
// CPU lacks it.
const Int8Kernels& int8_kernels();

}  // namespace charlm
