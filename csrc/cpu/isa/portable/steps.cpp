// The kernels of single steps, in 16-byte vectors.
#include "cpu/isa/portable/begin.h"
#include "cpu/steps/kernels.h"

CHARLM_END_REGION
