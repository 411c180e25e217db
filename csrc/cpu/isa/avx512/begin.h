// Opens the region of AVX512 code: what stands from here to CHARLM_END_REGION is compiled for it,
// and runs only after the CPU has been asked.
#pragma once

#include "cpu/isa/scalar.h"

#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma"))), apply_to = function)
#define CHARLM_END_REGION _Pragma("clang attribute pop")
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")
#define CHARLM_END_REGION
#endif

#define CHARLM_ISA avx512
#define CHARLM_VECTOR_BYTES 64
#define CHARLM_TILE_ROWS 6
