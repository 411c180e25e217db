// Opens the region of AVX2 code: what stands from here to CHARLM_END_REGION is compiled for it, and
// runs only after the CPU has been asked.
#pragma once

#include "cpu/isa/scalar.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#define CHARLM_END_REGION _Pragma("clang attribute pop")
#else
#pragma GCC target("avx2,fma")
#define CHARLM_END_REGION
#endif

#define CHARLM_ISA avx2
#define CHARLM_VECTOR_BYTES 32
#define CHARLM_TILE_ROWS 3
#define CHARLM_TALL
#define CHARLM_AVX2
