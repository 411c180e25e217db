#include "text_plan.h"

#include <algorithm>
#include <vector>

namespace charlm {
namespace cuda {
namespace {

constexpr int kLanes = 8, kWarps = 16;
constexpr long long kWarpRow = 1024;       // classes that a warp draws from
constexpr long long kMaxCache = 32 << 10;  // bytes of weights of the rows that are drawn
constexpr long long kMaxBlocks = 1LL << 30;

// Cycles, roughly: of a hand-over between blocks through L2 with its barrier, of a draw by one
// warp, and bytes a cycle from shared memory and from L2 to one of many multiprocessors.
constexpr double kHandOver[] = {200, 1000, 2200}, kDraw = 3000, kShared = 128, kSecondLevel = 40;

long long div_up(long long a, long long b) { return (a + b - 1) / b; }

struct Candidate {
  TextPlan plan;
  double cycles;  // of a step, for all rows
};

Candidate layout(const TextShape& s, const DeviceFacts& device, Wait wait, int size, int tile) {
  TextPlan p = {};
  const long long compute = s.element == 8 ? 8 : 4;
  p.wait = wait;
  p.rows = tile <= 2 ? 1 : 8;
  p.tile = tile;
  p.units = static_cast<int>(div_up(s.hidden, size));
  p.classes = static_cast<int>(padded(div_up(s.vocabulary, size)));
  // No block without units; one without classes only waits while the others have some.
  p.size = static_cast<int>(div_up(s.hidden, p.units));
  if (wait == Wait::kCluster) p.size = size;
  p.classes = static_cast<int>(padded(div_up(s.vocabulary, p.size)));
  const long long groups = div_up(s.batch, tile);
  p.groups = static_cast<int>(std::min(groups, kMaxBlocks));
  p.threads = s.element == 8 ? 256 : 512;
  long long columns = padded(s.hidden);
  for (long long l = 0; l < std::min(s.layers, 2LL); ++l)
    columns = std::max(columns, text_columns(s, l));
  p.columns = static_cast<int>(columns);
  p.drawers = s.vocabulary <= kWarpRow ? std::min(p.threads / 32, tile) : 0;
  p.shared_memory = tile * columns * compute + kWarps * 3 * 8 + tile * 16;
  const long long cache = 8 * s.vocabulary * std::max(1, p.drawers);
  p.cache = s.weights_of_draw && cache <= kMaxCache;
  if (p.cache) p.shared_memory += cache;
  p.shared_memory = div_up(p.shared_memory, 16) * 16;

  double streamed = 0, kept = 0;
  bool fits = true;
  for (long long part = 0; part <= s.layers; ++part) {
    const bool head = part == s.layers;
    const long long width =
        (head ? padded(s.hidden) : text_columns(s, part)) + row_pad(s.element) / s.element;
    const long long bytes = (head ? p.classes : 4LL * p.units) * width * s.element;
    fits = fits && p.shared_memory + bytes <= device.shared_memory;
    (fits ? kept : streamed) += static_cast<double>(bytes);
    if (!fits) continue;
    p.shared_memory += bytes;
    ++p.resident;
  }
  const double passes = tile / p.rows, multiplied = (kept + streamed) / s.element * tile;
  const double products = multiplied * (s.element == 8 ? 3 : 1.5) / 128;
  const double stream = passes * kept / kShared + passes * streamed / kSecondLevel;
  const double draws = p.drawers ? div_up(tile, p.drawers)
                                 : static_cast<double>(tile) * div_up(s.vocabulary, 4 * kWarpRow);
  const long long at_once = std::max(
      1LL, wait == Wait::kCluster ? device.clusters_of(p.size) * p.size : device.multiprocessors);
  const double waves = static_cast<double>(div_up(groups * p.size, at_once));
  const double cycles = std::max(products, stream) + draws * kDraw +
                        static_cast<double>(s.layers + 1) * kHandOver[static_cast<int>(wait)];
  if (p.shared_memory > device.shared_memory || groups > kMaxBlocks / p.size) p.size = 0;
  // All blocks of a grid must be resident at once: one waits for every other.
  if (wait == Wait::kGrid && groups * p.size > device.multiprocessors) p.size = 0;
  return {p, waves * cycles};
}

}  // namespace

TextPlan plan_text(const TextShape& s, const DeviceFacts& device) {
  std::vector<int> grids, tiles = {1, 2, 8, 16, 24, 32};
  for (int size = 2; size < device.multiprocessors; size *= 2) grids.push_back(size);
  for (int parts : {1, 2, 4, 8}) grids.push_back(device.multiprocessors / parts);
  Candidate best = {};
  const auto consider = [&](Wait wait, int size, int tile) {
    const Candidate found = layout(s, device, wait, size, tile);
    if (found.plan.size && (!best.plan.size || found.cycles < best.cycles)) best = found;
  };
  for (int tile : tiles) {
    if (tile > 2 && tile >= 8 + s.batch) break;
    consider(Wait::kBlock, 1, tile);
    if (device.sm >= 90)
      for (int size = 2; size <= std::min(device.max_cluster, device.multiprocessors); size *= 2)
        consider(Wait::kCluster, size, tile);
    for (int size : grids)
      if (size > 1) consider(Wait::kGrid, size, tile);
  }
  if (!best.plan.size) {
    best.plan.reason = "a row of " + std::to_string(s.hidden) + " hidden units and " +
                       std::to_string(s.inputs) + " inputs does not fit the " +
                       std::to_string(device.shared_memory) + " bytes of a block's shared memory";
  }
  return best.plan;
}

std::string describe(const TextPlan& p, long long layers) {
  if (!p.size) return "none: " + p.reason;
  const char* const kinds[] = {"block", "cluster", "grid"};
  const std::string kept = p.resident > layers ? "all weights"
                           : p.resident ? "weights of " + std::to_string(p.resident) + " layers"
                                        : "no weights";
  return std::string(kinds[static_cast<int>(p.wait)]) + ": " + std::to_string(p.groups) + " x " +
         std::to_string(p.size) + " blocks of " + std::to_string(p.threads) +
         " threads, each with " + std::to_string(p.units) + " units and " +
         std::to_string(p.classes) + " classes of " + std::to_string(p.tile) + " rows, " + kept +
         " and " + std::to_string(p.shared_memory) + " bytes in shared memory";
}

}  // namespace cuda
}  // namespace charlm
