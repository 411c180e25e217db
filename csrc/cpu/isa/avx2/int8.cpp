// The kernels of 8-bit weights, for x86-64 with AVX2.
#if defined(__x86_64__)
#include <immintrin.h>

#include "cpu/isa/avx2/begin.h"
#include "cpu/quantized/kernels.h"

CHARLM_END_REGION
#endif
