// The kernels of logits, draws and texts, in 16-byte vectors.
#include "cpu/isa/portable/begin.h"
#include "cpu/text/kernels.h"

CHARLM_END_REGION
