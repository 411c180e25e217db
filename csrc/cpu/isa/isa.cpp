#include "cpu/isa/isa.h"

#include <atomic>
#include <stdexcept>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace charlm {

#define CHARLM_DECLARE_TYPE(T)                  \
  extern const SequenceKernels<T> T##_sequence; \
  extern const OuterKernels<T> T##_outer;       \
  extern const StepKernels<T> T##_steps;        \
  extern const TextKernels<T> T##_text;

// The tables that the files below isa/ fill, together.
#define CHARLM_DECLARE(isa)                                                                        \
  namespace isa {                                                                                  \
  CHARLM_DECLARE_TYPE(float)                                                                       \
  CHARLM_DECLARE_TYPE(double)                                                                      \
  Kernels<float> floats() { return {float_sequence, float_outer, float_steps, float_text}; }       \
  Kernels<double> doubles() { return {double_sequence, double_outer, double_steps, double_text}; } \
  }
#define CHARLM_DECLARE_INT8(isa) \
  namespace isa {                \
  extern const Int8Kernels int8; \
  }

#if defined(__x86_64__)
CHARLM_DECLARE(avx512)
CHARLM_DECLARE(avx2)
CHARLM_DECLARE_INT8(avx2)
#endif
#if defined(__aarch64__)
CHARLM_DECLARE(neon)
CHARLM_DECLARE_INT8(neon)
CHARLM_DECLARE_INT8(neon_dot)
#endif
#if defined(CHARLM_HAS_AVX512_BF16)
namespace avx512_bf16 {
extern const SequenceKernels<bf16> bf16_sequence;
}
#endif
#if defined(CHARLM_HAS_AVX512_VNNI)
CHARLM_DECLARE_INT8(avx512_vnni)
#endif
CHARLM_DECLARE(portable)
CHARLM_DECLARE_INT8(portable)

namespace {

struct Isa {
  const char* name;
  bool here;
  Kernels<float> floats;
  Kernels<double> doubles;
  const Int8Kernels* int8;
  const SequenceKernels<bf16>* bf16s = nullptr;
};

#if defined(__aarch64__)
bool has_dot_products() {
#if defined(__APPLE__)
  return true;  // all Macs of this architecture
#elif defined(__linux__)
  constexpr unsigned long asimddp = 1ul << 20;  // HWCAP_ASIMDDP, which older headers lack
  return getauxval(AT_HWCAP) & asimddp;
#else
  return false;
#endif
}
#endif

const std::vector<Isa>& all_isas() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  static const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  static const bool has_avx512 =
      has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#endif
#if defined(CHARLM_HAS_AVX512_BF16)
  static const bool has_bf16 = has_avx512 && __builtin_cpu_supports("avx512bf16");
#endif
#if defined(CHARLM_HAS_AVX512_VNNI)
  static const bool has_vnni = has_avx512 && __builtin_cpu_supports("avx512vnni");
  static const Int8Kernels* const wide_int8 = has_vnni ? &avx512_vnni::int8 : &avx2::int8;
#elif defined(__x86_64__)
  static const Int8Kernels* const wide_int8 = &avx2::int8;
#endif
  static const std::vector<Isa> isas = {
#if defined(CHARLM_HAS_AVX512_BF16)
      {"avx512_bf16", has_bf16, avx512::floats(), avx512::doubles(), wide_int8,
       &avx512_bf16::bf16_sequence},
#endif
#if defined(__x86_64__)
      {"avx512", has_avx512, avx512::floats(), avx512::doubles(), wide_int8},
      {"avx2", has_avx2, avx2::floats(), avx2::doubles(), &avx2::int8},
#endif
#if defined(__aarch64__)
      {"neon_dot", has_dot_products(), neon::floats(), neon::doubles(), &neon_dot::int8},
      {"neon", true, neon::floats(), neon::doubles(), &neon::int8},
#endif
      {"portable", true, portable::floats(), portable::doubles(), &portable::int8},
  };
  return isas;
}

const Isa* fastest() {
  for (const Isa& isa : all_isas())
    if (isa.here) return &isa;
  return nullptr;  // not reached: the portable kernels run everywhere
}

std::atomic<const Isa*>& chosen() {
  static std::atomic<const Isa*> isa{fastest()};
  return isa;
}

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Isa& isa : all_isas())
    if (isa.here) names.push_back(isa.name);
  return names;
}

std::string current_isa() { return chosen().load()->name; }

void set_isa(const std::string& name) {
  for (const Isa& isa : all_isas())
    if (isa.here && name == isa.name) {
      chosen().store(&isa);
      return;
    }
  throw std::invalid_argument("instruction set '" + name + "' is not available on this machine");
}

template <>
const Kernels<float>& kernels<float>() {
  return chosen().load()->floats;
}
template <>
const Kernels<double>& kernels<double>() {
  return chosen().load()->doubles;
}

const Int8Kernels& int8_kernels() { return *chosen().load()->int8; }

template <>
const SequenceKernels<bf16>& sequence_kernels<bf16>() {
  const Isa* isa = chosen().load();
  if (!isa->bf16s)
    throw std::runtime_error("charlm_fast: the kernels in use, " + std::string(isa->name) +
                             ", have no bfloat16, expected avx512_bf16; convert to float32");
  return *isa->bf16s;
}

}  // namespace charlm
