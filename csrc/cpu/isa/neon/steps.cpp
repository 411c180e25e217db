// The kernels of single steps, for 64-bit Arm.
#if defined(__aarch64__)
#include "cpu/isa/neon/begin.h"
#include "cpu/steps/kernels.h"

CHARLM_END_REGION
#endif
