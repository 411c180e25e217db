// The kernels of the LSTM over a sequence, in 16-byte vectors.
#include "cpu/isa/portable/begin.h"
#include "cpu/lstm/kernels.h"

CHARLM_END_REGION
