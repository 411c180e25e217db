// The kernels of the LSTM over a sequence, for 64-bit Arm.
#if defined(__aarch64__)
#include "cpu/isa/neon/begin.h"
#include "cpu/lstm/kernels.h"

CHARLM_END_REGION
#endif
