// What one core reads a second, by how much it goes round and in how many streams: the floor of a
// step, whose weights are read once and used once (docs/latency.md).
//
//   g++ -O3 -mavx2 -mfma benchmarks/bandwidth.cpp -o bandwidth && ./bandwidth
//
// A stream is a part of the memory read in order, 64 bytes of each in turn, and multiplied and
// added as weights are. Best of many rounds, in pages of 4 KB and of 2 MB.
#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>

namespace {

double seconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

template <int Streams>
__attribute__((noinline)) float read(const float* p, size_t count) {
  const size_t each = count / Streams / 32 * 32;
  __m256 sums[8] = {};
  const __m256 x = _mm256_set1_ps(1.1f);
  constexpr int per = Streams == 1 ? 32 : 16;  // numbers of a stream in turn
  for (size_t i = 0; i < each; i += per)
#pragma GCC unroll 8
    for (int s = 0; s < Streams; ++s)
#pragma GCC unroll 4
      for (int v = 0; v < per / 8; ++v) {
        __m256& sum = sums[(s * (per / 8) + v) % 8];
        sum = _mm256_fmadd_ps(x, _mm256_loadu_ps(p + s * each + i + 8 * v), sum);
      }
  float total = 0;
  for (const __m256& sum : sums) total += sum[0];
  return total;
}

volatile float sink;

template <int Streams>
double gigabytes(const float* p, size_t count) {
  double best = 1e9;
  const int repeats = std::max<int>(1, 1'000'000 / count);
  const double end = seconds() + 0.15;
  while (seconds() < end) {
    const double start = seconds();
    for (int k = 0; k < repeats; ++k) sink = read<Streams>(p, count);
    best = std::min(best, (seconds() - start) / repeats);
  }
  return 4e-9 * count / best;
}

}  // namespace

int main() {
  constexpr size_t huge = size_t{2} << 20;
  for (const int advice : {MADV_NOHUGEPAGE, MADV_HUGEPAGE}) {
    std::printf("GB/s in pages of %s, by streams\n      KB      1      2      3      4      8\n",
                advice == MADV_HUGEPAGE ? "2 MB" : "4 KB");
    for (size_t kb : {16, 256, 1024, 4096, 16384, 65536}) {
      const size_t bytes = kb * 1024 + 2 * huge;
      void* raw = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (raw == MAP_FAILED) return 1;
      madvise(raw, bytes, advice);
      float* p = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(raw) + huge) / huge * huge);
      const size_t count = kb * 256;
      std::fill_n(p, count, 1.0f);
      std::printf("%8zu %6.1f %6.1f %6.1f %6.1f %6.1f\n", kb, gigabytes<1>(p, count),
                  gigabytes<2>(p, count), gigabytes<3>(p, count), gigabytes<4>(p, count),
                  gigabytes<8>(p, count));
      munmap(raw, bytes);
    }
  }
}
