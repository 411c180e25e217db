// A product of 16 rows of weights and 8 of inputs over 16 columns, and one over 32, handed to a
// warp where the PTX ISA says that element i of a lane's fragment lies: the largest error of each.
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

template <class T>
void kernel() {
  Case<T>& c = kept<T>;
  const int group = static_cast<int>(threadIdx.x >> 2),
            in_group = static_cast<int>(threadIdx.x % 4);
  unsigned a[4], b[2];
  for (int i = 0; i < 8; i += 2) {  // "for ai": as printed in the PTX ISA
    const int row = (0 <= i && i < 2) || (4 <= i && i < 6) ? group : group + 8;
    const int column = i < 4 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8;
    a[i / 2] = pair<T>(c.weights[row][column], c.weights[row][column + 1]);
  }
  for (int i = 0; i < 4; i += 2) {  // "for bi"
    const int row = i < 2 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8, column = group;
    b[i / 2] = pair<T>(c.inputs[column][row], c.inputs[column][row + 1]);
  }
  float narrow[4] = {}, wide[4] = {};
  multiply_16<T>(a, b, narrow);
  Octet top, bottom, x;
  for (int w = 0; w < 4; ++w) {
    const int k = in_group * kOctet + 2 * w;
    top.word[w] = pair<T>(c.weights[group][k], c.weights[group][k + 1]);
    bottom.word[w] = pair<T>(c.weights[group + 8][k], c.weights[group + 8][k + 1]);
    x.word[w] = pair<T>(c.inputs[group][k], c.inputs[group][k + 1]);
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
  for (int columns = 16; columns <= 32; columns += 16) {
    float worst = 0;
    for (int r = 0; r < 16; ++r)
      for (int n = 0; n < 8; ++n) {
        float right = 0;
        for (int k = 0; k < columns; ++k) right += c.weights[r][k] * c.inputs[n][k];
        worst = fmaxf(worst, fabsf(c.found[columns / 16 - 1][r][n] - right));
      }
    printf("%s %d: %g\n", name, columns, worst);
  }
}

}  // namespace

int main() {
  check<__nv_bfloat16>("bfloat16");
  check<__half>("half");
  return 0;
}
