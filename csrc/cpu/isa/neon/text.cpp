// The kernels of logits, draws and texts, for 64-bit Arm.
#if defined(__aarch64__)
#include "cpu/isa/neon/begin.h"
#include "cpu/text/kernels.h"

CHARLM_END_REGION
#endif
