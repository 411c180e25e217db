// What the parts of a sequence of one row with 8-bit weights take, within one call and alone.
//
//     g++ -O3 -std=c++17 -ffp-contract=fast -Icsrc benchmarks/int8_parts.cpp -o parts && ./parts
//
// Two layers, 192 steps, the kernels of AVX2 as csrc/cpu/quantized/lstm.cpp calls them;
// microseconds a step of a layer. "In place" are the parts of the fastest of many calls, whose sum
// is what that call took. "Out of L1" are the loops of both products with one panel of weights,
// times as many panels as there are: what their instructions take, up to 512 units. At 1,024 two
// panels of w_hh are 64 KB and come from L2.
#include <immintrin.h>

#include "cpu/isa/avx2/begin.h"
#include "cpu/quantized/kernels.h"
CHARLM_END_REGION

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace charlm {

float scalar_log(float x) { return std::log(x); }
double scalar_log(double x) { return std::log(x); }
void yield_thread() {}
long long nanoseconds() { return 0; }

namespace {

constexpr i64 kSteps = 192, kLayers = 2;
enum Part { kQuantize, kInput, kRecurrent, kCells, kParts };

double now() {
  return std::chrono::duration<double, std::micro>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

template <class T>
T* take(i64 count) {
  void* p = std::aligned_alloc(64, (count * sizeof(T) + 63) / 64 * 64);
  std::memset(p, 0, count * sizeof(T));
  return static_cast<T*>(p);
}

Int8Matrix draw(i64 H) {
  const i64 panels = (H + 7) / 8, width = panels * 32, bytes = width * int8_words(H) * 4;
  signed char* words = take<signed char>(bytes);
  for (i64 k = 0; k < bytes; ++k) words[k] = static_cast<signed char>(1 + std::rand() % 255);
  float* scale = take<float>(width);
  std::fill_n(scale, width, 1 / std::sqrt(static_cast<float>(H)) / 127);
  return {4 * H, H, panels, words, scale, take<float>(width)};
}

Int8Rows rows_of(i64 rows, i64 K) {
  return {take<signed char>(rows * activation_stride(K)), take<float>(rows), take<int>(rows)};
}

void measure(i64 H, double seconds) {
  const Int8Kernels& k = avx2::int8;
  const i64 panels = (H + 7) / 8, width = panels * 32, chunk = 4 * H * H > 1 << 20 ? 96 : 24;
  Int8Matrix ih[kLayers], hh[kLayers];
  for (i64 l = 0; l < kLayers; ++l) ih[l] = draw(H), hh[l] = draw(H);
  float *x = take<float>(kSteps * H), *y = take<float>(kSteps * H),
        *pre = take<float>(chunk * width);
  for (i64 n = 0; n < kSteps * H; ++n) x[n] = static_cast<float>(std::rand() % 2001 - 1000) / 500;
  const Int8Rows input = rows_of(chunk, H), state = rows_of(1, H);
  std::vector<double> best(kParts, 1e9), parts(kParts);
  double least = 1e9, in_l1[2] = {1e9, 1e9};
  for (const double end = now() + seconds * 1e6; now() < end;) {
    std::fill(parts.begin(), parts.end(), 0.0);
    double at = now();
    const double start = at;
    const auto done = [&](Part part) {
      const double time = now();
      parts[part] += time - at;
      at = time;
    };
    for (i64 l = 0; l < kLayers; ++l) {
      float *h = take<float>(H), *c = take<float>(H);
      for (i64 begin = 0; begin < kSteps; begin += chunk) {
        const i64 rows = std::min(chunk, kSteps - begin);
        k.quantize((l ? y : x) + begin * H, H, rows, H, input);
        done(kQuantize);
        k.multiply(input, rows, ih[l], 0, panels, {pre, width, false, true, false});
        done(kInput);
        for (i64 t = 0; t < rows; ++t) {
          float *row = pre + t * width, *out = y + (begin + t) * H;
          k.quantize(h, H, 1, H, state);
          done(kQuantize);
          k.multiply(state, 1, hh[l], 0, panels, {row, width, true, true, t % 2 == 1});
          done(kRecurrent);
          k.cells({H, row, width, c, out}, 1, 0, panels);
          std::memcpy(h, out, H * sizeof(float));
          done(kCells);
        }
      }
      std::free(h);
      std::free(c);
    }
    if (now() - start < least) least = now() - start, best = parts;
    for (int one = 0; one < 2; ++one) {  // a panel is two strips: four, as one row takes them
      const i64 rows = one ? 1 : chunk, together = one ? std::min<i64>(2, panels) : 1;
      at = now();
      for (int n = 0; n < 50; ++n)
        k.multiply(one ? state : input, rows, hh[0], 0, together, {pre, width, false, true, false});
      const double time = (now() - at) / 50 / static_cast<double>(rows * together);
      in_l1[one] = std::min(in_l1[one], time * static_cast<double>(panels));
    }
  }
  const double each = 1.0 / (kSteps * kLayers);
  std::printf("| %lld | %.2f | %.2f | %.2f | %.2f | %.2f | %.2f | %.2f |\n", H, least * each,
              best[kInput] * each, in_l1[0], best[kRecurrent] * each, in_l1[1], best[kCells] * each,
              best[kQuantize] * each);
}

}  // namespace
}  // namespace charlm

int main() {
  std::puts(
      "| units | a step | w_ih in place | out of L1 | w_hh in place | out of L1 | cells | to int8 "
      "|");
  std::puts("|---|---|---|---|---|---|---|---|");
  for (const long long H : {128, 256, 512, 1024}) charlm::measure(H, 5);
}
