// Compares avx512.h with the instructions themselves, for a CPU that has AVX512_VNNI and
// AVX512_BF16: random bits, ordinary numbers and those at the ends of what a type holds. Results
// are equal bit by bit, NaN to any NaN; reciprocals each within 2^-14 of the true one.
//
// check ROUNDS SEED
#include <cstdio>
#include <cstdlib>
#include <random>

#include "avx512.h"

namespace {

using namespace emulated;

std::mt19937_64 random_bits;

float draw() {
  constexpr float special[] = {0,         -0.0f,  1,       -1,    0.5f,          1.5f,
                               2.5f,      1e-40f, -1e-40f, 3e38f, 2147483648.0f, INFINITY,
                               -INFINITY, NAN};
  const uint64_t word = random_bits();
  switch (word >> 60) {
    case 0:
    case 1:
      return special[word % (sizeof(special) / sizeof(float))];
    case 2:
    case 3:
      return bits<float>(static_cast<uint32_t>(word));
    default:
      return std::normal_distribution<float>(0, 30)(random_bits);
  }
}

template <class To, class Lane, class Draw>
To vector(const Draw& next) {
  Lanes<Lane> out;
  for (Lane& lane : out.lane) lane = static_cast<Lane>(next());
  return bits<To>(out);
}

__m512 floats() { return vector<__m512, float>(draw); }
__m512i words() {
  return vector<__m512i, uint64_t>([] { return random_bits(); });
}
__m512bh halves() {
  return vector<__m512bh, uint16_t>([] { return bits<uint32_t>(draw()) >> 16; });
}

template <class Lane, class V>
void same(const V& a, const V& b, const char* what) {
  Lane x[sizeof(V) / sizeof(Lane)], y[sizeof(V) / sizeof(Lane)];
  std::memcpy(x, &a, sizeof(a));
  std::memcpy(y, &b, sizeof(b));
  for (size_t k = 0; k < sizeof(V) / sizeof(Lane); ++k)
    if (std::memcmp(x + k, y + k, sizeof(Lane)) && (x[k] == x[k] || y[k] == y[k])) {
      std::printf("%s: lane %zu is %.9g, expected %.9g\n", what, k, static_cast<double>(x[k]),
                  static_cast<double>(y[k]));
      std::exit(1);
    }
}

// bfloat16, of whose NaNs any will do.
void same_halves(const __m256bh& a, const __m256bh& b) {
  float x[kLanes], y[kLanes];
  for (int k = 0; k < kLanes; ++k) {
    uint16_t half[2];
    std::memcpy(half, reinterpret_cast<const char*>(&a) + 2 * k, 2);
    std::memcpy(half + 1, reinterpret_cast<const char*>(&b) + 2 * k, 2);
    x[k] = bits<float>(uint32_t{half[0]} << 16);
    y[k] = bits<float>(uint32_t{half[1]} << 16);
  }
  same<float>(x, y, "cvtneps_pbh");
}

void reciprocals(__m512 a, __m512 found, const char* what) {
  const Floats x = bits<Floats>(a), y = bits<Floats>(found);
  for (int k = 0; k < kLanes; ++k) {
    const double right = 1 / static_cast<double>(x.lane[k]);
    const bool ordinary = std::isnormal(x.lane[k]) && std::abs(right) > 1e-37;
    if (ordinary ? std::abs(y.lane[k] - right) > std::ldexp(std::abs(right), -14)
                 : x.lane[k] == 0 && !std::isinf(y.lane[k])) {
      std::printf("%s: 1 / %.9g is %.9g\n", what, x.lane[k], y.lane[k]);
      std::exit(1);
    }
  }
}

void round_of_all() {
  const __m512 a = floats(), b = floats();
  const __m512i sum = words(), u = words(), v = words();
  const __m512bh p = halves(), q = halves();
  const unsigned mask = random_bits() & 0xffff;
  same<float>(set1_ps(3), _mm512_set1_ps(3), "set1_ps");
  same<int32_t>(set1_epi32(-3), _mm512_set1_epi32(-3), "set1_epi32");
  same<float>(min_ps(a, b), _mm512_min_ps(a, b), "min_ps");
  same<float>(maskz_min_ps(mask, a, b), _mm512_maskz_min_ps(mask, a, b), "maskz_min_ps");
  same<float>(maskz_max_ps(mask, a, b), _mm512_maskz_max_ps(mask, a, b), "maskz_max_ps");
  same<int32_t>(maskz_cvtps_epi32(mask, a), _mm512_maskz_cvtps_epi32(mask, a), "cvtps_epi32");
  same<uint8_t>(maskz_cvtepi32_epi8(mask, u), _mm512_maskz_cvtepi32_epi8(mask, u), "cvtepi32_epi8");
  same<float>(roundscale_ps<0>(a), _mm512_roundscale_ps(a, 0), "roundscale_ps");
  same<float>(scalef_ps(a, b), _mm512_scalef_ps(a, b), "scalef_ps");
  same<int32_t>(dpbusd_epi32(sum, u, v), _mm512_dpbusd_epi32(sum, u, v), "dpbusd_epi32");
  same<float>(dpbf16_ps(a, p, q), _mm512_dpbf16_ps(a, p, q), "dpbf16_ps");
  same_halves(cvtneps_pbh(a), _mm512_cvtneps_pbh(a));
  reciprocals(a, rcp14_ps(a), "rcp14_ps here");
  reciprocals(a, _mm512_rcp14_ps(a), "rcp14_ps");
}

}  // namespace

int main(int count, char** argument) {
  const int rounds = count > 1 ? std::atoi(argument[1]) : 1000;
  random_bits.seed(count > 2 ? std::strtoull(argument[2], nullptr, 10) : 0);
  for (int k = 0; k < rounds; ++k) round_of_all();
  std::printf("%d rounds\n", rounds);
}
