// Where the parts of packed weights lie.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/isa/isa.h"
#include "cpu/memory/workspace.h"
#include "cpu/quantized/args.h"

namespace charlm {

constexpr int64_t kInt8Vectors = 4, kInt8Word = 4;  // of a panel; values of K

// The first bytes: for which kernels the rest was packed, and of which sizes it is. A linear layer
// has no layers, K as I and N as R.
struct Int8Header {
  int32_t lanes, offset;
  int64_t L, I, H, R, has_proj;
};

constexpr int64_t kInt8HeaderBytes = 64;

// A matrix's part of the block at `used`, which is moved behind it.
inline Int8Matrix place_int8(const Int8Kernels& k, int64_t N, int64_t K, bool gates, char* base,
                             int64_t& used) {
  Int8Matrix m = {};
  m.N = N;
  m.K = K;
  m.panels = gates ? div_up(N / 4, k.lanes) : div_up(N, kInt8Vectors * k.lanes);
  const int64_t columns = m.panels * kInt8Vectors * k.lanes;
  const auto take = [&](int64_t bytes) {
    char* part = base + used;
    used += div_up(bytes, 64) * 64;
    return part;
  };
  m.words = reinterpret_cast<signed char*>(take(columns * int8_words(K) * kInt8Word));
  m.scale = reinterpret_cast<float*>(take(columns * 4));
  m.bias = reinterpret_cast<float*>(take(columns * 4));
  return m;
}

struct Int8Layer {
  Int8Matrix ih, hh, hr;  // the last of a projection
};

struct Int8Layers {
  std::vector<Int8Layer> layers;
  int64_t bytes = kInt8HeaderBytes;

  Int8Layers(const Int8Kernels& k, int64_t L, int64_t I, int64_t H, int64_t R, bool has_proj,
             char* base) {
    for (int64_t l = 0; l < L; ++l) {
      Int8Layer layer = {};
      layer.ih = place_int8(k, 4 * H, l ? R : I, true, base, bytes);
      layer.hh = place_int8(k, 4 * H, R, true, base, bytes);
      if (has_proj) layer.hr = place_int8(k, R, H, false, base, bytes);
      layers.push_back(layer);
    }
  }
};

// Throws where it is for other kernels, or of other sizes.
inline void check_int8(const void* packed, const Int8Kernels& k, const Int8Header& expected) {
  const Int8Header& found = *static_cast<const Int8Header*>(packed);
  STD_TORCH_CHECK(
      found.lanes == k.lanes && found.offset == k.offset,
      "charlm_fast: the weights were packed for the kernels of another instruction set");
  STD_TORCH_CHECK(found.L == expected.L && found.I == expected.I && found.H == expected.H &&
                      found.R == expected.R && found.has_proj == expected.has_proj,
                  "charlm_fast: the weights have ", found.L, " layers of ", found.I, ", ", found.H,
                  " and ", found.R, " columns, units and outputs, expected ", expected.L, ", ",
                  expected.I, ", ", expected.H, " and ", expected.R,
                  " of the input and the states");
}

}  // namespace charlm
