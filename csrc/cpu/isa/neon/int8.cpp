// The kernels of 8-bit weights, for 64-bit Arm.
#if defined(__aarch64__)
#include <arm_neon.h>

#include "cpu/isa/neon/begin.h"
#include "cpu/quantized/kernels.h"

CHARLM_END_REGION
#endif
