// The kernels of 8-bit weights, for x86-64 with AVX512_VNNI.
#include "cpu/isa/storage.h"

#if defined(CHARLM_HAS_AVX512_VNNI)
#include <immintrin.h>

#include "cpu/isa/scalar.h"

#if defined(__clang__)
#pragma clang attribute push(                                                          \
    __attribute__((target("avx512vnni,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma"))), \
    apply_to = function)
#define CHARLM_END_REGION _Pragma("clang attribute pop")
#else
#pragma GCC target("avx512vnni,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")
#define CHARLM_END_REGION
#endif

#define CHARLM_ISA avx512_vnni
#define CHARLM_VECTOR_BYTES 64
#define CHARLM_TILE_ROWS 6
#define CHARLM_VNNI
#include "cpu/quantized/kernels.h"

CHARLM_END_REGION
#endif
