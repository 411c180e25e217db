// The kernels of logits, draws and texts, for x86-64 with AVX2.
#if defined(__x86_64__)
#include "cpu/isa/avx2/begin.h"
#include "cpu/text/kernels.h"

CHARLM_END_REGION
#endif
