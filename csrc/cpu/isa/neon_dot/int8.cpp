// The kernels of 8-bit weights, for 64-bit Arm with the dot products of ARMv8.2; they run only
// after the CPU has been asked. The others are those of isa/neon.
#if defined(__aarch64__)
#include <arm_neon.h>

#include "cpu/isa/scalar.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#define CHARLM_END_REGION _Pragma("clang attribute pop")
#else
#pragma GCC target("arch=armv8.2-a+dotprod")
#define CHARLM_END_REGION
#endif

#define CHARLM_ISA neon_dot
#define CHARLM_NEON
#define CHARLM_DOTPROD
#define CHARLM_VECTOR_BYTES 16
#define CHARLM_TILE_ROWS 6
#include "cpu/quantized/kernels.h"

CHARLM_END_REGION
#endif
