// The LSTM with 8-bit weights over a sequence, or over a single step.
//
// Layer by layer: the input products of a chunk of steps at once, so that w_ih passes once for all
// of them, then step by step the state to int8, its product with w_hh, and the cells. A step reads
// w_hh, 4 H R bytes; every other one goes back over the panels, the last of which the caches still
// hold. Batches of enough rows are divided over torch's threads.
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstring>

#include "cpu/quantized/int8.h"
#include "cpu/quantized/packed.h"
#include "cpu/threads/share.h"

namespace charlm {
namespace {

// Rows of one input product: few, so that their sums are still near when they are read, and more
// where either matrix comes from far and each product drives the other one's out.
constexpr int64_t kChunkRows = 24, kFarRows = 96, kNearBytes = 1 << 20;

// Rows of each step: all of them, or those of a packed batch that lie in a tile [first, last).
struct Int8Steps {
  const Int8Sequence& s;
  int64_t first, last;
  std::vector<int64_t> offset;  // of a packed batch

  Int8Steps(const Int8Sequence& sequence, int64_t first_row, int64_t last_row)
      : s(sequence), first(first_row), last(last_row) {
    if (!s.batch_sizes) return;
    offset.push_back(0);
    for (int64_t t = 0; t < s.T; ++t) offset.push_back(offset.back() + s.batch_sizes[t]);
  }
  int64_t at(int64_t t) const { return (s.batch_sizes ? offset[t] : t * s.B) + first; }
  int64_t count(int64_t t) const {
    return s.batch_sizes ? std::clamp<int64_t>(s.batch_sizes[t] - first, 0, last - first)
                         : last - first;
  }
};

// What one thread works in.
struct Scratch {
  float *pre, *hidden, *input_scale, *state_scale;
  signed char *input, *state;
  int *input_sum, *state_sum;
  int64_t used;

  Scratch(float* base, int64_t rows, int64_t chunk, int64_t columns, int64_t width,
          int64_t unprojected) {
    Arena<float> arena(base);
    const auto quantized = [&](int64_t n) {
      return reinterpret_cast<signed char*>(
          arena.take(n * activation_stride(columns) / static_cast<int64_t>(sizeof(float))));
    };
    pre = arena.take(chunk * rows * width);
    hidden = arena.take(rows * unprojected);
    input_scale = arena.take(chunk * rows);
    state_scale = arena.take(rows);
    input_sum = reinterpret_cast<int*>(arena.take(chunk * rows));
    state_sum = reinterpret_cast<int*>(arena.take(rows));
    input = quantized(chunk * rows);
    state = quantized(rows);
    used = arena.used();
  }
};

struct Run {
  const Int8Sequence& s;
  const Int8Kernels& k;
  const Int8Layers placed;
  int64_t width, chunk;
  float* inner;  // twice (N, R): the outputs of the layers below the top one

  void layer(int64_t l, const Int8Steps& steps, const Scratch& scratch) const {
    const Int8Layer& weights = placed.layers[l];
    const int64_t I = l ? s.R : s.I, rows = steps.last - steps.first;
    const float* x = l ? inner + (l - 1) % 2 * s.N * s.R : s.x;
    float* y = l + 1 < s.L ? inner + l % 2 * s.N * s.R : s.y;
    float* h = s.h_n + (l * s.B + steps.first) * s.R;
    float* c = s.c_n + (l * s.B + steps.first) * s.H;
    std::memcpy(h, s.h_0 + (l * s.B + steps.first) * s.R, sizeof(float) * rows * s.R);
    std::memcpy(c, s.c_0 + (l * s.B + steps.first) * s.H, sizeof(float) * rows * s.H);
    const Int8Rows input = {scratch.input, scratch.input_scale, scratch.input_sum};
    const Int8Rows state = {scratch.state, scratch.state_scale, scratch.state_sum};
    const i64 vectors = div_up(s.H, k.lanes);
    for (int64_t begin = 0; begin < s.T; begin += chunk) {
      const int64_t end = std::min(s.T, begin + chunk);
      int64_t together = 0;
      for (int64_t step = begin; step < end; ++step) {
        const int64_t t = s.reverse ? s.T - 1 - step : step, n = steps.count(t);
        k.quantize(x + steps.at(t) * I, I, n, I,
                   {input.values + together * activation_stride(I), input.scale + together,
                    input.sum + together});
        together += n;
      }
      k.multiply(input, together, weights.ih, 0, weights.ih.panels,
                 {scratch.pre, width, false, true, false});
      float* pre = scratch.pre;
      for (int64_t step = begin; step < end; ++step) {
        const int64_t t = s.reverse ? s.T - 1 - step : step, n = steps.count(t);
        k.quantize(h, s.R, n, s.R, state);
        k.multiply(state, n, weights.hh, 0, weights.hh.panels,
                   {pre, width, true, true, step % 2 == 1});
        float* out = y + steps.at(t) * s.R;
        float* hidden = s.has_proj ? scratch.hidden : out;
        k.cells({s.H, pre, width, c, hidden}, n, 0, vectors);
        if (s.has_proj) {
          k.quantize(hidden, s.H, n, s.H, state);
          k.multiply(state, n, weights.hr, 0, weights.hr.panels, {out, s.R, false, false, false});
        }
        std::memcpy(h, out, sizeof(float) * n * s.R);
        pre += n * width;
      }
    }
  }
};

}  // namespace

void lstm_int8(const Int8Sequence& s) {
  const Int8Kernels& k = int8_kernels();
  check_int8(s.packed, k, {0, 0, s.L, s.I, s.H, s.R, s.has_proj});
  char* packed = static_cast<char*>(const_cast<void*>(s.packed));
  const double products = 4.0 * s.L * s.N * s.H * (s.R + s.I);
  const int64_t threads = products < kWorthThreads ? 1 : torch::stable::get_num_threads();
  const int64_t tiles = std::clamp<int64_t>(threads, 1, std::max<int64_t>(1, s.B));
  const int64_t tile_rows = std::max<int64_t>(1, div_up(s.B, tiles));
  const int64_t width = div_up(s.H, k.lanes) * kInt8Vectors * k.lanes;
  const int64_t chunk_rows = 4 * s.H * std::max(s.I, s.R) > kNearBytes ? kFarRows : kChunkRows;
  const int64_t chunk = std::clamp<int64_t>(chunk_rows / tile_rows, 1, std::max<int64_t>(1, s.T));
  const int64_t columns = std::max({s.I, s.R, s.has_proj ? s.H : 0});
  const int64_t inner = s.L > 1 ? std::min<int64_t>(2, s.L - 1) * s.N * s.R : 0;
  const auto scratch_at = [&](float* base) {
    return Scratch(base, tile_rows, chunk, columns, width, s.has_proj ? s.H : 0);
  };
  const int64_t each = scratch_at(nullptr).used, before = div_up(inner, 16) * 16;
  const Buffer<float> workspace = make_buffer<float>(before + tiles * each);
  const Run run = {s,     k,     Int8Layers(k, s.L, s.I, s.H, s.R, s.has_proj, packed),
                   width, chunk, workspace.get()};
  const auto tile = [&](int64_t n) {
    const Int8Steps steps(s, s.B * n / tiles, s.B * (n + 1) / tiles);
    const Scratch scratch = scratch_at(workspace.get() + before + n * each);
    for (int64_t l = 0; l < s.L; ++l) run.layer(l, steps, scratch);
  };
  if (tiles == 1)
    tile(0);
  else
    torch::stable::parallel_for(0, tiles, 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) tile(n);
    });
}

void linear_int8(const void* packed, int64_t rows, int64_t K, int64_t N, const float* x, float* y) {
  const Int8Kernels& k = int8_kernels();
  check_int8(packed, k, {0, 0, 0, K, 0, N, 0});
  int64_t used = kInt8HeaderBytes;
  const Int8Matrix m =
      place_int8(k, N, K, false, static_cast<char*>(const_cast<void*>(packed)), used);
  constexpr int64_t kBlock = 32;
  const int64_t most = std::min(rows, kBlock), stride = activation_stride(K);
  const Buffer<signed char> values = make_buffer<signed char>(most * stride);
  const Buffer<float> scale = make_buffer<float>(most);
  const Buffer<int> sum = make_buffer<int>(most);
  const Int8Rows quantized = {values.get(), scale.get(), sum.get()};
  for (int64_t r = 0; r < rows; r += kBlock) {
    const int64_t n = std::min(kBlock, rows - r);
    k.quantize(x + r * K, K, n, K, quantized);
    k.multiply(quantized, n, m, 0, m.panels, {y + r * N, N, false, false, false});
  }
}

}  // namespace charlm
