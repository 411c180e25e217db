// What the CPU offers and the system saves on a context switch, asked at run time.
#include "cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace charlm {

#if defined(__x86_64__)
namespace {

// Leaf 7: AVX512_BF16 is bit 5 of EAX in subleaf 1, AMX-BF16 bit 22 of EDX in subleaf 0.
bool leaf7(unsigned subleaf, int reg, int bit) {
  unsigned r[4] = {};
  if (!__get_cpuid_count(7, subleaf, &r[0], &r[1], &r[2], &r[3])) return false;
  return (r[reg] >> bit) & 1;
}

}  // namespace
#endif

std::vector<CpuFeature> cpu_features() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f");
  return {
      {"avx2", __builtin_cpu_supports("avx2") != 0},
      {"fma", __builtin_cpu_supports("fma") != 0},
      {"avx512f", avx512},
      {"avx512bw", __builtin_cpu_supports("avx512bw") != 0},
      {"avx512vl", __builtin_cpu_supports("avx512vl") != 0},
      {"avx512dq", __builtin_cpu_supports("avx512dq") != 0},
      {"avx512_bf16", avx512 && leaf7(1, 0, 5)},
      {"amx_bf16", avx512 && leaf7(0, 3, 22)},
  };
#elif defined(__aarch64__)
  return {{"neon", true}};
#else
  return {};
#endif
}

}  // namespace charlm
