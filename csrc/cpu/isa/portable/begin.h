// Opens the region of code in 16-byte vectors, which every 64-bit machine has: SSE2, NEON.
#pragma once

#include "cpu/isa/scalar.h"

#define CHARLM_END_REGION

#define CHARLM_ISA portable
#define CHARLM_VECTOR_BYTES 16
#if defined(__aarch64__)
#define CHARLM_TILE_ROWS 6  // 32 vector registers
#else
#define CHARLM_TILE_ROWS 2  // 16
#endif
