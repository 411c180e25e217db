// mma.sync.m16n8k16, and m16n8k8 of TF32, on the host: a warp's lanes hand in their fragments, and
// each computes its four sums from all of them, where the PTX ISA ("Matrix Fragments for
// mma.m16n8k16 with floating point type", "Matrix Fragments for mma.m16n8k8": .tf32) places the
// elements.
#pragma once

#include "cuda_runtime.h"

namespace cuda_on_host {

struct Fragments {
  unsigned a[4], b[2];
};
inline std::vector<Fragments> fragments[2];  // what each thread handed in, in turn

// cvt.rna.tf32.f32: 10 bits behind the point, to nearest, ties away from zero.
inline float to_tf32(float x) {
  unsigned bits;
  memcpy(&bits, &x, sizeof bits);
  if ((bits & 0x7f800000u) != 0x7f800000u) bits = (bits + 0x1000u) & ~0x1fffu;
  memcpy(&x, &bits, sizeof bits);
  return x;
}

// The lower 13 bits of a register of TF32 are unspecified: what left them there did not round.
inline float tf32_of(unsigned bits) {
  float value;
  memcpy(&value, &bits, sizeof bits);
  return bits & 0x1fffu ? NAN : value;
}

// Element (row, column) of a warp's 16 x 16 operand, and (column, row) of its 8 x 16 one.
template <class T>
float element(const unsigned* words, int i) {
  const unsigned short bits = static_cast<unsigned short>(words[i / 2] >> i % 2 * 16);
  T value;
  memcpy(&value, &bits, sizeof bits);
  return static_cast<float>(value);
}
template <class T>
float weight(const Fragments* warp, int row, int column) {
  if constexpr (sizeof(T) == 4)
    return tf32_of(warp[row % 8 * 4 + column % 4].a[row / 8 + column / 4 * 2]);
  const int lane = row % 8 * 4 + column % 8 / 2, i = column % 2 + row / 8 * 2 + column / 8 * 4;
  return element<T>(warp[lane].a, i);
}
template <class T>
float input(const Fragments* warp, int row, int column) {
  if constexpr (sizeof(T) == 4) return tf32_of(warp[row * 4 + column % 4].b[column / 4]);
  const int lane = row * 4 + column % 8 / 2, i = column % 2 + column / 8 * 2;
  return element<T>(warp[lane].b, i);
}

template <class T>
void mma(const unsigned (&a)[4], const unsigned (&b)[2], float (&sums)[4]) {
  Machine& m = machine;
  std::vector<Fragments>& all = fragments[m.fibers[m.current].turn++ % 2];
  if (all.size() < m.fibers.size()) all.resize(m.fibers.size());
  memcpy(all[m.current].a, a, sizeof a);
  memcpy(all[m.current].b, b, sizeof b);
  m.park(State::kWarp);
  const Fragments* warp = &all[m.current / 32 * 32];
  const int lane = static_cast<int>(m.current % 32);
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < 32 / static_cast<int>(sizeof(T)); ++k)
      sums[i] += weight<T>(warp, row, k) * input<T>(warp, column, k);
  }
}

}  // namespace cuda_on_host
