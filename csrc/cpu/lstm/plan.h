// What forward and backward share: the weights by layer, the steps, and who does what.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "cpu/isa/isa.h"
#include "cpu/lstm/args.h"
#include "cpu/memory/typed.h"
#include "cpu/memory/workspace.h"
#include "cpu/threads/share.h"
#include "cpu/threads/team.h"

namespace charlm {

// Rows of an input product where a layer's weights are more than fit near a core.
constexpr int64_t kFarRows = 192, kNearBytes = 1 << 20;

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
    schedule = {s.T,   s.B, s.N,       size.data(), offset.data(), reverse,
                tiles, 1,   wavefront, false,       nullptr};
    // Enough rows in a chunk's product to reuse a weight panel; few in a wavefront, whose upper
    // layer idles for the first chunk.
    const int64_t rows = std::max<int64_t>(1, s.B / tiles);
    schedule.chunk =
        std::clamp<int64_t>((wavefront ? 12 : 48) / rows, 1, std::max<int64_t>(s.T, 1));
    progress.assign(s.L * tiles, 0);
    schedule.progress = progress.data();
  }

  int64_t tile_rows() const { return (schedule.B + schedule.tiles - 1) / schedule.tiles; }

  // Panels are packed in strips where that is faster: the kernels' table says so.
  template <class S>
  void choose_strips(const SequenceKernels<S>& k, const Sizes& s) {
    schedule.strips = tile_rows() >= k.strip_rows;
    if (k.pack_gate_triples) widen_chunks<S>(s);
  }

  // The same of a forward pass, whose input product always has many rows, and how w_hh is packed:
  // see triples.h.
  template <class S>
  void choose_forward(const SequenceKernels<S>& k, const Sizes& s) {
    if (!k.pack_gate_triples) return;
    const int64_t rows = std::max<int64_t>(1, tile_rows());
    const bool few = rows == 2 || rows == 3, triples = rows == 4 || (rows > 6 && rows <= 16);
    schedule.recurrent = few ? Packing::panels : triples ? Packing::triples : Packing::strips;
    schedule.strips = schedule.chunk * rows >= k.strip_rows;
    if (!schedule.strips) schedule.recurrent = Packing::panels;
    widen_chunks<S>(s);
  }

  // Weights that come from far drive the state's out: the more rows, the fewer times.
  template <class S>
  void widen_chunks(const Sizes& s) {
    if (schedule.wavefront || 4 * s.H * std::max(s.I, s.R) * sizeof(S) <= kNearBytes) return;
    const int64_t rows = std::max<int64_t>(1, tile_rows());
    schedule.chunk = std::clamp<int64_t>(kFarRows / rows, schedule.chunk,
                                         std::max<int64_t>(s.T, schedule.chunk));
  }

  // Whether one thread computes layer after layer.
  bool layer_by_layer() const { return schedule.tiles == 1 && members == 1 && !schedule.wavefront; }

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

// Data pointers of slices [l] of a flat buffer, one slice of `step` elements a layer.
template <class P>
std::vector<P*> slices(P* base, int64_t layers, int64_t step) {
  std::vector<P*> out;
  for (int64_t l = 0; l < layers; ++l) out.push_back(base ? base + l * step : nullptr);
  return out;
}

}  // namespace charlm
