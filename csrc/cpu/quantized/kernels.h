// The table of the kernels of 8-bit weights, for the instruction set whose region the including
// file opened.
#pragma once

#include "cpu/isa/kernels.h"
#include "cpu/quantized/cells.h"
#include "cpu/quantized/products.h"

namespace charlm {
namespace CHARLM_ISA {

extern const Int8Kernels int8;
const Int8Kernels int8 = {kLanes<float>, kWeightOffset, quantize_rows,
                          multiply_int8, int8_cells,    kDotVectors};

}  // namespace CHARLM_ISA
}  // namespace charlm
