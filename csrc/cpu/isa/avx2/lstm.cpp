// The kernels of the LSTM over a sequence, for x86-64 with AVX2.
#if defined(__x86_64__)
#include "cpu/isa/avx2/begin.h"
#include "cpu/lstm/kernels.h"

CHARLM_END_REGION
#endif
