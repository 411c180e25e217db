// Kernels for x86-64 with AVX512; nothing here runs before the CPU has been asked.
#if defined(__x86_64__)
#include "scalar.h"

#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")
#endif

#define CHARLM_ISA avx512
#define CHARLM_VECTOR_BYTES 64
#define CHARLM_TILE_ROWS 6
#include "isa_kernels.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
