// The kernels of the LSTM over a sequence in bfloat16, for x86-64 with AVX512_BF16; they run only
// after the CPU has been asked. The others are those of isa/avx512.
#include "cpu/isa/storage.h"

#if defined(CHARLM_HAS_AVX512_BF16)
#include <immintrin.h>

#include "cpu/isa/scalar.h"

#if defined(__clang__)
#pragma clang attribute push(                                                          \
    __attribute__((target("avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma"))), \
    apply_to = function)
#define CHARLM_END_REGION _Pragma("clang attribute pop")
#else
#pragma GCC target("avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")
#define CHARLM_END_REGION
#endif

#define CHARLM_ISA avx512_bf16
#define CHARLM_VECTOR_BYTES 64
#define CHARLM_TILE_ROWS 6
#define CHARLM_BF16
#include "cpu/lstm/kernels.h"

CHARLM_END_REGION
#endif
