// Kernels in bfloat16 for x86-64 with AVX512_BF16; nothing here runs before the CPU has been asked.
// float32 and float64 are those of isa_avx512.cpp.
#include "storage.h"

#if defined(CHARLM_HAS_AVX512_BF16)
#include <immintrin.h>

#include "scalar.h"

#if defined(__clang__)
#pragma clang attribute push(                                                          \
    __attribute__((target("avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma"))), \
    apply_to = function)
#else
#pragma GCC target("avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")
#endif

#define CHARLM_ISA avx512_bf16
#define CHARLM_VECTOR_BYTES 64
#define CHARLM_TILE_ROWS 6
#define CHARLM_BF16
#include "sequence_kernels.h"

namespace charlm {
namespace CHARLM_ISA {

extern const SequenceKernels<bf16> bf16_kernels;
const SequenceKernels<bf16> bf16_kernels = make_sequence_kernels<bf16>();

}  // namespace CHARLM_ISA
}  // namespace charlm

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
