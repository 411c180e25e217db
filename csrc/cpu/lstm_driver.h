// What forward and backward share: the weights by layer, the steps, and who does what.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include "isa.h"
#include "lstm.h"
#include "pages.h"
#include "team.h"
#include "tensors.h"

namespace charlm {

// Of the whole piece that malloc gave.
struct Free {
  void* piece;
  void operator()(void*) const { std::free(piece); }
};

template <class T>
using Buffer = std::unique_ptr<T[], Free>;

// 64-byte aligned, so that a vector load of a panel never straddles two cache lines. By malloc:
// what glibc's aligned_alloc gave is too small for the same request again.
template <class T>
Buffer<T> make_buffer(int64_t count) {
  const size_t bytes = static_cast<size_t>(count) * sizeof(T) + 64;
  void* piece = std::malloc(bytes);
  STD_TORCH_CHECK(piece != nullptr, "charlm_fast: out of memory for ", bytes,
                  " bytes of workspace");
  advise_huge_pages(piece, bytes);
  const uintptr_t start = (reinterpret_cast<uintptr_t>(piece) + 63) / 64 * 64;
  return Buffer<T>(reinterpret_cast<T*>(start), Free{piece});
}

// A tensor's values; torch's own accessors know no bf16 of ours.
template <class S>
const S* values(const Tensor& t) {
  if constexpr (std::is_same_v<S, bf16>)
    return static_cast<const bf16*>(t.const_data_ptr());
  else
    return t.const_data_ptr<S>();
}
template <class S>
S* mutable_values(const Tensor& t) {
  if constexpr (std::is_same_v<S, bf16>)
    return static_cast<bf16*>(t.mutable_data_ptr());
  else
    return t.mutable_data_ptr<S>();
}

// Calls run(S{}) for the type that the tensor holds.
template <class Run>
auto with_type_of(const Tensor& t, const Run& run) {
  using torch::headeronly::ScalarType;
  const ScalarType type = t.scalar_type();
  STD_TORCH_CHECK(
      type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::BFloat16,
      "charlm_fast: the CPU kernels take float32, float64 and bfloat16");
  if (type == ScalarType::Float) return run(float{});
  if (type == ScalarType::Double) return run(double{});
  return run(bf16{});
}

// A tensor to be written whole.
template <class T>
Tensor make_tensor(const Tensor& like, const Shape& shape) {
  Tensor t = make_empty(like, shape);
  advise_huge_pages(mutable_values<T>(t), static_cast<size_t>(t.numel()) * sizeof(T));
  return t;
}

// Below this many multiply-adds waking a second thread costs more than it saves.
constexpr double kWorthThreads = 2e5;

// Bytes of a layer's recurrent weights that one core streams fast enough from its own cache.
constexpr double kOneCoreKeeps = 512e3;

// From so many bytes on, streaming half of them takes less time than the threads to meet; the tests
// have less.
#ifndef CHARLM_WORTH_MEETING
#define CHARLM_WORTH_MEETING 40e3
#endif
constexpr double kWorthMeeting = CHARLM_WORTH_MEETING;

// A thread with fewer than three rows waits for memory, not arithmetic: splitting weights, of which
// each core's cache then keeps a part, beats splitting such rows.
inline bool few_rows(int64_t rows, int64_t threads) { return threads > 1 && rows < 3 * threads; }

// The threads that share the units of such layers: one where `bytes`, of the weights between two
// meetings, are not worth it.
inline int64_t team_size(int64_t rows, int64_t threads, double bytes, int64_t panels) {
  if (!few_rows(rows, threads) || bytes < kWorthMeeting) return 1;
  return std::min<int64_t>({threads, panels, kMostMembers});
}

// How many times the stream of the weights takes as long for so many rows, roughly.
inline double work_of_rows(int64_t rows) { return 1 + static_cast<double>(rows) / 4; }

struct Sizes {
  int64_t L, T, B, N, I, H, R;
};

// Steps and their rows, and a division of the work over torch's threads.
struct Plan {
  std::vector<i64> size, offset;
  std::vector<int> progress;
  Schedule schedule;
  int64_t members = 1;
  double work = 0;  // between two meetings of a team, as bytes of weights

  // element: bytes of a weight; w_hh is packed into `panels`.
  Plan(const Sizes& s, const std::optional<Tensor>& batch_sizes, bool reverse, size_t element,
       int64_t panels) {
    const int64_t* packed = batch_sizes ? batch_sizes->const_data_ptr<int64_t>() : nullptr;
    offset.push_back(0);
    for (int64_t t = 0; t < s.T; ++t) {
      size.push_back(packed ? packed[t] : s.B);
      offset.push_back(offset.back() + size.back());
    }
    STD_TORCH_CHECK(offset.back() == s.N, "charlm_fast: batch_sizes sum to ", offset.back(),
                    " but the input has ", s.N, " rows");
    const double products = 4.0 * s.L * s.N * s.H * (s.R + s.I);
    int64_t threads = products < kWorthThreads ? 1 : torch::stable::get_num_threads();
    threads = std::max<int64_t>(threads, 1);
    // By layer, the threads meet once a chunk, and by units at every step.
    const double weight_bytes = 4.0 * s.H * s.R * static_cast<double>(element);
    const bool wavefront = few_rows(s.B, threads) && s.L > 1 && weight_bytes <= kOneCoreKeeps;
    if (!wavefront) members = team_size(s.B, threads, weight_bytes, panels);
    work = weight_bytes * work_of_rows(s.B);
    const int64_t tiles =
        members > 1 ? 1 : std::max<int64_t>(1, std::min(s.B, wavefront ? threads / s.L : threads));
    schedule = {s.T, s.B, s.N, size.data(), offset.data(), reverse, tiles, 1, wavefront, nullptr};
    // Enough rows in a chunk's product to reuse a weight panel; few in a wavefront, whose upper
    // layer idles for the first chunk.
    const int64_t rows = std::max<int64_t>(1, s.B / tiles);
    schedule.chunk =
        std::clamp<int64_t>((wavefront ? 12 : 48) / rows, 1, std::max<int64_t>(s.T, 1));
    progress.assign(s.L * tiles, 0);
    schedule.progress = progress.data();
  }

  int64_t tile_rows() const { return (schedule.B + schedule.tiles - 1) / schedule.tiles; }

  int64_t slots() const {
    return schedule.wavefront ? static_cast<int64_t>(progress.size()) : schedule.tiles;
  }

  // Runs task(layer, tile, member) for all: layers in the given order, all of a tile's on one
  // thread or by one team, unless they form a wavefront.
  template <class Task>
  void run(int64_t layers, bool top_down, const Task& task) const {
    const int64_t tiles = schedule.tiles;
    const auto layer = [&](int64_t k) { return top_down ? layers - 1 - k : k; };
    Member alone = {0, 1, nullptr};
    if (members > 1)
      run_team(members, work, [&](Member& member) {
        for (int64_t k = 0; k < layers && member.size; ++k) task(layer(k), 0, member);
      });
    else if (schedule.wavefront)
      torch::stable::parallel_for(0, layers * tiles, 1, [&](int64_t begin, int64_t end) {
        for (int64_t k = begin; k < end; ++k) task(layer(k / tiles), k % tiles, alone);
      });
    else
      torch::stable::parallel_for(0, tiles, 1, [&](int64_t begin, int64_t end) {
        for (int64_t tile = begin; tile < end; ++tile)
          for (int64_t k = 0; k < layers; ++k) task(layer(k), tile, alone);
      });
  }
};

template <class S>
std::vector<Layer<S>> layers_of(const std::vector<Tensor>& weights, bool has_bias, bool has_proj) {
  const size_t each = 2 + has_bias + has_proj;
  STD_TORCH_CHECK(!weights.empty() && weights.size() % each == 0, "charlm_fast: got ",
                  weights.size(), " weights, expected a multiple of ", each);
  std::vector<Layer<S>> layers;
  for (size_t k = 0; k < weights.size(); k += each) {
    Layer<S> layer = {};
    layer.I = weights[k].size(1);
    layer.w_ih = values<S>(weights[k]);
    layer.w_hh = values<S>(weights[k + 1]);
    if (has_bias) layer.bias = values<S>(weights[k + 2]);
    if (has_proj) layer.w_hr = values<S>(weights[k + 2 + has_bias]);
    layers.push_back(layer);
  }
  return layers;
}

inline int64_t div_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Data pointers of slices [l] of a flat buffer, one slice of `step` elements a layer.
template <class P>
std::vector<P*> slices(P* base, int64_t layers, int64_t step) {
  std::vector<P*> out;
  for (int64_t l = 0; l < layers; ++l) out.push_back(base ? base + l * step : nullptr);
  return out;
}

// Hands out consecutive parts of one workspace; sized by a dry run with a null base. Under
// AddressSanitizer a gap that must not be touched follows each part.
template <class T>
class Arena {
 public:
  explicit Arena(T* base) : base_(base) {}
  T* take(int64_t count) {
    T* p = base_ ? base_ + used_ : nullptr;
    constexpr int64_t line = 64 / sizeof(T);
    used_ += div_up(count, line) * line;
#if defined(__SANITIZE_ADDRESS__)
    used_ += line;
    if (p) ASAN_POISON_MEMORY_REGION(p + count, (base_ + used_ - p - count) * sizeof(T));
#endif
    return p;
  }
  int64_t used() const { return used_; }

 private:
  T* base_;
  int64_t used_ = 0;
};

// Room for `count` narrower values, from an arena of wider ones.
template <class S>
S* take_narrow(Arena<Compute<S>>& arena, int64_t count) {
  constexpr int64_t each = sizeof(Compute<S>) / sizeof(S);
  return reinterpret_cast<S*>(arena.take(div_up(count, each)));
}

inline void check_ids(const int64_t* ids, int64_t count, int64_t limit, const char* what) {
  for (int64_t k = 0; k < count; ++k)
    STD_TORCH_CHECK(ids[k] >= 0 && ids[k] < limit, "charlm_fast: ", what, " holds ", ids[k],
                    ", expected values from 0 to ", limit - 1);
}

}  // namespace charlm
