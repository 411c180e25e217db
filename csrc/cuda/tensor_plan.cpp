#include "tensor_plan.h"

#include <algorithm>

namespace charlm {
namespace cuda {
namespace {

// Cycles, roughly: 1,024 multiply-adds each for mma.sync of 16 bits (wgmma would do twice as many
// on sm_90) and 512 in TF32, 128 bytes from shared memory, and what a warp waits for its two
// dependent products of a lane's 16 bytes and their loads.
constexpr double kMultiplied = 2048, kShared = 128,
                 kChain = 64;  // the first times an element's bytes
constexpr int kMaxThreads = 512, kWarps = kMaxThreads / 32;
constexpr long long kNever = 1LL << 60;  // bytes that no block has

long long div_up(long long a, long long b) { return (a + b - 1) / b; }
long long round_up(long long a, long long b) { return div_up(a, b) * b; }

// Columns of two products, of which a lane has 16 bytes.
long long columns_of_products(int element) { return 4 * 16 / element; }

// Elements between rows in shared memory of at least `columns`: of the 8 lanes that are served at
// once, four read 64 bytes of a row and four of the next.
int stride_of(long long columns, int element) {
  return static_cast<int>(round_up(columns, 128 / element) + 64 / element);
}

// For `rows` of a tile, with the columns in `parts` parts.
SequencePlan forward_layout(const SequencePlan& base, int element, long long rows,
                            long long columns, int parts) {
  SequencePlan p = base;
  const long long products = columns / columns_of_products(element);
  const int octets = p.units / 8, slots = p.kernel == SequenceKernel::kCluster ? 2 : 1;
  const long long cells = static_cast<long long>(p.tile) * p.units;
  p.parts = parts;
  p.held = octets * parts <= kWarps && parts * kHeldProducts >= products;
  p.stride = stride_of(columns, element);
  const long long sums = 16LL * slots * parts * p.tile * (p.units + 1);
  const long long kept = (p.held ? 0 : 4LL * p.units) + static_cast<long long>(slots) * p.tile;
  p.shared_memory =
      element * kept * p.stride + sums + 4 * cells + 16LL * p.units + (slots > 1 ? kMailbox : 0);
  const long long busy = std::min<long long>(octets * parts, kWarps) * 32;
  p.threads = static_cast<int>(
      std::min<long long>(kMaxThreads, std::max<long long>({128, busy, round_up(cells, 32)})));

  const double passes = p.tile / 8, weights = 4.0 * p.units * columns;
  const double multiplied = weights * p.tile * element / kMultiplied;
  const double rounds = static_cast<double>(div_up(octets * parts, p.threads / 32));
  const double chain = static_cast<double>(div_up(products, parts)) * passes * kChain * rounds;
  const double inputs = element * octets * p.tile * static_cast<double>(columns);
  const double loads = (inputs + (p.held ? 0 : element * weights * passes)) / kShared;
  const double handed = 2.0 * 16 * parts * static_cast<double>(cells) / kShared;
  const double turns = static_cast<double>(div_up(cells, p.threads));
  // h of the whole layer comes to every block.
  const bool alone = p.group == 1 && p.layers == 1;
  const double received = element * static_cast<double>(rows * columns);
  const double moved = slots == 1 ? received / kCache : alone ? 0 : received / kRemote;
  p.cycles = std::max({multiplied, chain, loads}) + handed + moved + kCellCycles * turns;
  return p;
}

// Of `tiles` tiles of 16 columns, each a warp's.
SequencePlan backward_layout(const SequencePlan& base, int element, long long rows,
                             long long tiles) {
  SequencePlan p = base;
  const bool cluster = p.kernel == SequenceKernel::kCluster;
  const int sources = p.layers > 1 ? 2 : 1;
  const int products = static_cast<int>(4 * p.units / columns_of_products(element));
  const long long cells = static_cast<long long>(p.tile) * p.units;
  const long long warps = std::min<long long>(kWarps, std::max<long long>(4, tiles));
  p.held = true;
  p.threads =
      static_cast<int>(std::min<long long>(kMaxThreads, std::max(32 * warps, round_up(cells, 32))));
  p.stride = stride_of(4LL * p.units, element);
  const long long parts = sources * p.group * cells;
  p.parts = static_cast<int>(std::max<long long>(1, 4 * p.threads / cells));
  p.shared_memory = (cluster ? 2LL : 1LL) * element * p.tile * p.stride + 4 * cells +
                    4 * (cluster ? 2 * parts : sources * p.parts * cells) +
                    (cluster ? kMailbox : 0);
  p.exchange = cluster ? 0 : 2LL * p.groups * p.group * p.layers * parts;

  const double passes = p.tile / 8, columns = 16.0 * static_cast<double>(tiles);
  const double multiplied = 4.0 * p.units * columns * p.tile * element / kMultiplied;
  const double chain = passes * products * kChain;
  const double loads = passes * p.threads * 16.0 * products / kShared;
  const double moved =
      4.0 * static_cast<double>(parts / p.tile * round_up(rows, 4));  // sent, and as much received
  const double added = cluster ? moved / kRemote + moved / kShared : 2 * moved / kCache;
  const double turns = static_cast<double>(div_up(cells, p.threads));
  const bool alone = p.group == 1 && p.layers == 1;
  p.cycles = std::max({multiplied, chain, loads}) + (alone ? 0 : added) + kCellCycles * turns;
  // Tiles of which a warp has weights.
  const int most = products == 1 && !cluster ? 5 : 8 / products;
  if (p.units > 32 || div_up(tiles, p.threads / 32) > most) p.shared_memory = kNever;
  return p;
}

}  // namespace

SequencePlan tensor_layout(const SequenceShape& s, const DeviceFacts& device, int layers,
                           SequenceKernel kernel, int group, long long tile) {
  SequencePlan p = {};
  p.layers = layers;
  p.kernel = kernel;
  p.rows = 8;
  p.units = static_cast<int>(round_up(div_up(s.hidden, group), 8));
  if (s.backward && p.units > 8)
    p.units = p.units > 16 ? static_cast<int>(round_up(p.units, 32)) : 16;
  p.group = kernel == SequenceKernel::kGrid ? static_cast<int>(div_up(s.hidden, p.units)) : group;
  p.tile = static_cast<int>(round_up(tile, 8));
  p.groups = static_cast<int>(div_up(s.batch, p.tile));
  const long long rows = std::min<long long>(p.tile, s.batch);
  if (s.backward)
    return backward_layout(p, s.element, rows, (layers > 1 ? 2 : 1) * div_up(s.hidden, 16));
  const bool grid = kernel == SequenceKernel::kGrid;
  // Two, in floats.
  p.exchange = grid ? layers * s.batch * round_up(s.hidden, 16 / s.element) * s.element / 2 : 0;
  const long long width = columns_of_products(s.element);
  const long long columns = (layers > 1 ? 2 : 1) * round_up(s.hidden, width);

  SequencePlan best = forward_layout(p, s.element, rows, columns, 1);
  const long long most = std::min<long long>(kWarps * 8 / p.units, columns / width);
  for (int parts = 2; parts <= most; ++parts) {
    const SequencePlan other = forward_layout(p, s.element, rows, columns, parts);
    const bool fits = other.shared_memory <= device.shared_memory;
    if (fits && (other.cycles < best.cycles || best.shared_memory > device.shared_memory))
      best = other;
  }
  return best;
}

}  // namespace cuda
}  // namespace charlm
