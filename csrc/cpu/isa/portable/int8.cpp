// The kernels of 8-bit weights, in 16-byte vectors.
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "cpu/isa/portable/begin.h"
#include "cpu/quantized/kernels.h"

CHARLM_END_REGION
