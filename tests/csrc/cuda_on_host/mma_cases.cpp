// A product of 16 rows of weights and 8 of inputs over 16 columns, and one over 32 (8 and 16 in
// TF32), handed to a warp where the PTX ISA says that element i of a lane's fragment lies: the
// largest error of each. Then what rounding to TF32 makes of numbers.
#include <math.h>
#include <time.h>

#include "cuda/tensor.cuh"

namespace {

using namespace charlm::cuda;

template <class T>
struct Case {
  float weights[16][32], inputs[8][32], found[2][16][8];
};
template <class T>
Case<T> kept;

template <class T>
unsigned pair(float low, float high) {
  return bits_of(static_cast<T>(low)) | bits_of(static_cast<T>(high)) << 16;
}

// The fragments of one product as the PTX ISA prints them.
template <class T>
void place(const Case<T>& c, int group, int in_group, unsigned (&a)[4], unsigned (&b)[2]) {
  for (int i = 0; i < 8; i += 2) {  // "for ai": as printed in the PTX ISA
    const int row = (0 <= i && i < 2) || (4 <= i && i < 6) ? group : group + 8;
    const int column = i < 4 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8;
    a[i / 2] = pair<T>(c.weights[row][column], c.weights[row][column + 1]);
  }
  for (int i = 0; i < 4; i += 2) {  // "for bi"
    const int row = i < 2 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8, column = group;
    b[i / 2] = pair<T>(c.inputs[column][row], c.inputs[column][row + 1]);
  }
}

template <>
void place(const Case<float>& c, int group, int in_group, unsigned (&a)[4], unsigned (&b)[2]) {
  for (int i = 0; i < 4; ++i) {
    const int row = i == 0 || i == 2 ? group : group + 8;
    const int column = i < 2 ? in_group : in_group + 4;
    a[i] = bits_of(c.weights[row][column]);
  }
  for (int i = 0; i < 2; ++i) b[i] = bits_of(c.inputs[group][i ? in_group + 4 : in_group]);
}

template <class T>
void kernel() {
  Case<T>& c = kept<T>;
  const int group = static_cast<int>(threadIdx.x >> 2),
            in_group = static_cast<int>(threadIdx.x % 4);
  unsigned a[4], b[2];
  place(c, group, in_group, a, b);
  float narrow[4] = {}, wide[4] = {};
  multiply_once<T>(a, b, narrow);
  Words top, bottom, x;
  for (int w = 0; w < 4; ++w) {
    const int k = in_group * kLane<T> + w * kLane<T> / 4;
    const auto word = [&](const float* row) {
      return sizeof(T) == 4 ? bits_of(row[k]) : pair<T>(row[k], row[k + 1]);
    };
    top.word[w] = word(c.weights[group]);
    bottom.word[w] = word(c.weights[group + 8]);
    x.word[w] = word(c.inputs[group]);
  }
  multiply<T>(top, bottom, x, wide);
  for (int i = 0; i < 4; ++i) {  // "for ci"
    const int row = i < 2 ? group : group + 8, column = in_group * 2 + (i & 1);
    c.found[0][row][column] = narrow[i];
    c.found[1][row][column] = wide[i];
  }
}

template <class T>
void check(const char* name) {
  Case<T>& c = kept<T>;
  // Small whole numbers, of which every sum is exact.
  for (int k = 0; k < 32; ++k) {
    for (int r = 0; r < 16; ++r) c.weights[r][k] = static_cast<float>((r * 7 + k * 5) % 13 - 6);
    for (int r = 0; r < 8; ++r) c.inputs[r][k] = static_cast<float>((r * 3 + k * 11) % 17 - 8);
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(1);
  config.blockDim = dim3(32);
  cudaLaunchKernelEx(&config, kernel<T>);
  for (int half = 1; half <= 2; ++half) {
    const int columns = half * kColumns<T> / 2;
    float worst = 0;
    for (int r = 0; r < 16; ++r)
      for (int n = 0; n < 8; ++n) {
        float right = 0;
        for (int k = 0; k < columns; ++k) right += c.weights[r][k] * c.inputs[n][k];
        worst = fmaxf(worst, fabsf(c.found[half - 1][r][n] - right));
      }
    printf("%s %d: %g\n", name, columns, worst);
  }
}

// Numbers whose rounding is not the nearest of 11 significant bits, ties away from zero.
int badly_rounded() {
  unsigned state = static_cast<unsigned>(time(nullptr));
  int bad = 0;
  for (int k = 0; k < 100000; ++k) {
    state = state * 1664525u + 1013904223u;
    const int bits = k % 3 ? 24 : 12;  // of 12, every other is a tie
    const float x =
        ldexpf(static_cast<float>(state >> (32 - bits)), static_cast<int>(state % 60) - 40) *
        (k % 2 ? 1.0f : -1.0f);
    int exponent;
    frexpf(x, &exponent);
    const double right = ldexp(round(ldexp(static_cast<double>(x), 11 - exponent)), exponent - 11);
    bad += static_cast<double>(operand(x)) != right;
  }
  return bad + (operand(INFINITY) != INFINITY) + !isnan(operand(NAN));
}

}  // namespace

int main() {
  check<__nv_bfloat16>("bfloat16");
  check<__half>("half");
  check<float>("tf32");
  printf("badly rounded: %d\n", badly_rounded());
  return 0;
}
