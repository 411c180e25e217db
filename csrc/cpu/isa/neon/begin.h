// Opens the region of NEON code, which every 64-bit Arm machine runs: vectors of 16 bytes, 32
// registers. A tile of 6 rows x 4 vectors has 24 sums in them and leaves 8 for the panel's row and
// the rows' values.
#pragma once

#include "cpu/isa/scalar.h"

#define CHARLM_END_REGION

#define CHARLM_ISA neon
#define CHARLM_NEON
#define CHARLM_VECTOR_BYTES 16
#define CHARLM_TILE_ROWS 6
