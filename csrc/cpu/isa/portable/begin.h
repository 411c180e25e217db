// Opens the region of code in 16-byte vectors, which every machine can compile: x86-64 before AVX2,
// and those that have no folder here.
#pragma once

#include "cpu/isa/scalar.h"

#define CHARLM_END_REGION

#define CHARLM_ISA portable
#define CHARLM_VECTOR_BYTES 16
#define CHARLM_TILE_ROWS 2  // of SSE2's 16 registers
