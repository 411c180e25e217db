#include "plan.h"

#include <algorithm>

#include "tensor_plan.h"

namespace charlm {
namespace cuda {
namespace {

// Cycles of a step, roughly. A multiprocessor reads 128 bytes from shared memory and does 128
// multiply-adds a cycle; h on its way to another block of a cluster takes about 200, to gather,
// send and notice it as many again, and more to reach a larger one; across a grid it is stored,
// fenced, counted and read back.
constexpr double kShared = 128, kMultiplied = 128;
constexpr double kCluster = 500, kClusterBlock = 20, kGrid = 2400;
// Of an estimate: what TF32 must save to be taken where both may be.
constexpr double kLessExact = 0.9;
// Above this many rows a group, the products of a GEMM a step keep the device busy by themselves.
constexpr long long kMaxTile = 32;
constexpr int kMaxThreads = 512, kLanes = 8;

long long div_up(long long a, long long b) { return (a + b - 1) / b; }
long long round_up(long long a, long long b) { return div_up(a, b) * b; }

SequencePlan per_step(const std::string& reason) {
  SequencePlan plan = {};
  plan.kernel = SequenceKernel::kPerStep;
  plan.reason = reason;
  return plan;
}

SequencePlan layout(const SequenceShape& s, const DeviceFacts& device, int layers,
                    SequenceKernel kernel, int group, long long tile) {
  SequencePlan p = {};
  p.layers = layers;
  p.kernel = kernel;
  p.rows = s.batch <= 2 ? 1 : 8;
  p.units = static_cast<int>(round_up(div_up(s.hidden, group), 4));
  p.group = kernel == SequenceKernel::kGrid ? static_cast<int>(div_up(s.hidden, p.units)) : group;
  p.tile = static_cast<int>(round_up(tile, p.rows));
  p.groups = static_cast<int>(div_up(s.batch, p.tile));
  const int sources = layers > 1 ? 2 : 1;  // of a block's inputs: its own layer, the next one
  const bool cluster = kernel == SequenceKernel::kCluster;
  const long long columns = round_up(s.hidden, 4), own = static_cast<long long>(p.tile) * p.units;
  // The lanes of a team read neighbouring rows backward, neighbouring columns forward.
  const int pad = s.backward ? 16 : row_pad(s.element);
  p.stride = static_cast<int>(round_up(sources * columns, 128 / s.element) + pad / s.element);
  const long long received = sources * p.group * own;
  p.shared_memory = 4LL * p.units * p.stride * s.element + own * 4 + (cluster ? kMailbox : 0);
  if (s.backward) {
    const long long dgates = 16LL * p.units * (p.tile + (p.rows > 1 ? kTilePad : 0));
    p.shared_memory += dgates + (cluster ? 2 * received * 4 : 0);
    // In a cluster a block computes the dgates of a step while it multiplies those before, if it
    // can.
    p.dgates = cluster && p.shared_memory + dgates <= device.shared_memory ? 2 : 1;
    p.shared_memory += (p.dgates - 1) * dgates;
    p.exchange = cluster ? 0 : 2 * p.groups * p.group * layers * received;
  } else {
    p.shared_memory += (cluster ? 2 : 1) * sources * p.tile * columns * 4;
    p.exchange = cluster ? 0 : 2 * layers * s.batch * s.hidden;
  }
  const long long teams = (s.backward ? sources * columns / 4 : p.units) * (p.tile / p.rows);
  p.threads = static_cast<int>(std::min<long long>(kMaxThreads, round_up(teams * kLanes, 32)));
  p.threads = std::max(p.threads, 128);
  return p;
}

// Blocks of one launch must not share a multiprocessor while others idle: two that stream their
// weights halve each other's bandwidth. More than half of the memory keeps them apart.
SequencePlan alone(SequencePlan p, const DeviceFacts& device) {
  const long long half = device.stacked ? 0 : device.shared_memory / 2 / 16 * 16 + 16;
  p.shared_memory = std::max(p.shared_memory, half);
  return p;
}

double cycles_of(const SequenceShape& s, const SequencePlan& p) {
  const double columns = static_cast<double>((p.layers > 1 ? 2 : 1) * round_up(s.hidden, 4));
  const double products = 4 * p.units * columns, passes = p.tile / p.rows;
  // A pass over the weights serves a register tile; each team reads the tile's rows anew.
  const double loads = passes * (products * s.element + p.units * columns * p.rows * 4) / kShared;
  const double multiplied = products * p.tile / kMultiplied;
  return std::max(loads, multiplied) + kCellCycles;
}

double hand_over(const SequencePlan& p) {
  const bool cluster = p.kernel == SequenceKernel::kCluster;
  return cluster ? kCluster + kClusterBlock * p.group * p.layers : kGrid;
}

}  // namespace

std::string describe(const SequencePlan& p) {
  if (p.kernel == SequenceKernel::kPerStep) return "per step: " + p.reason;
  const bool cluster = p.kernel == SequenceKernel::kCluster;
  return std::string(cluster ? "cluster" : "grid") + ": " + std::to_string(p.groups) + " x " +
         std::to_string(p.group) + " blocks of " + std::to_string(p.threads) +
         " threads, each with " + std::to_string(p.units) + " units of " + std::to_string(p.tile) +
         " rows and " + std::to_string(p.shared_memory) + " bytes of shared memory" +
         (p.parts ? p.tf32 ? ", on tensor cores in TF32" : ", on tensor cores" : "") +
         (p.held ? ", weights in registers" : "") +
         (p.layers > 1 ? ", for each of " + std::to_string(p.layers) + " layers as a wavefront"
                       : "");
}

namespace {

// `tensor`: on tensor cores.
SequencePlan plan_layers(const SequenceShape& s, int layers, const DeviceFacts& device,
                         bool tensor) {
  if (s.element == 8) return per_step("float64 runs a GEMM and a cell a step");
  if (s.projected) return per_step("a projection (proj_size) runs a GEMM and a cell a step");
  if (s.packed) return per_step("packed batches run a GEMM and a cell a step");
  if (s.hidden < 1 || s.batch < 1) return per_step("there is nothing to compute");
  if (s.batch > kMaxTile * device.multiprocessors)
    return per_step("a batch of " + std::to_string(s.batch) +
                    " rows keeps the device busy with a GEMM a step");
  if (tensor && device.sm < 80) return per_step("16 bits need the tensor cores of sm_80");
  const long long matrix = (layers > 1 ? 8 : 4) * s.hidden * s.hidden * s.element;

  SequencePlan best = {};
  const auto consider = [&](const SequencePlan& plan) {
    if (plan.tile > kMaxTile || plan.shared_memory > device.shared_memory) return;
    const double cycles = (tensor ? plan.cycles : cycles_of(s, plan)) + hand_over(plan);
    if (best.group && cycles >= best.cycles) return;
    best = alone(plan, device);
    best.cycles = cycles;
  };
  const auto lay_out = [&](SequenceKernel kernel, int group, long long tile) {
    return (tensor ? tensor_layout : layout)(s, device, layers, kernel, group, tile);
  };
  // Clusters of a power of two: what every device offers.
  const int most = layers & (layers - 1) ? 0 : device.max_cluster / layers;
  for (int group = 1; group <= most && device.sm >= 90; group *= 2) {
    const long long clusters = device.clusters_of(group * layers);
    if (clusters < 1) break;
    consider(lay_out(SequenceKernel::kCluster, group, div_up(s.batch, clusters)));
  }
  for (long long tile = std::min(s.batch, kMaxTile); tile > 0; tile = tile > 8 ? tile / 2 : 0) {
    const long long groups = div_up(s.batch, s.batch <= 2 ? tile : round_up(tile, 8));
    const long long group = device.multiprocessors / (groups * layers);
    if (group < 1) break;
    const SequencePlan plan = lay_out(SequenceKernel::kGrid, static_cast<int>(group), tile);
    // All blocks must be resident at once: one waits for every other.
    if (plan.groups * plan.group * layers <= device.multiprocessors) consider(plan);
  }
  if (best.group) return best;
  return per_step("the recurrent weights of " + std::to_string(s.hidden) + " units (" +
                  std::to_string(matrix >> 10) + " KiB) and the state of " +
                  std::to_string(s.batch) + " rows do not fit the shared memory of " +
                  std::to_string(device.multiprocessors) + " multiprocessors");
}

// Cycles in which what the kernels without tensor cores hand over comes to a block.
double moved(const SequenceShape& s, const SequencePlan& p) {
  if (p.group == 1 && p.layers == 1) return 0;
  const bool cluster = p.kernel == SequenceKernel::kCluster;
  const double sources = p.layers > 1 ? 2 : 1;
  const double rows = static_cast<double>(std::min<long long>(p.tile, s.batch));
  if (!s.backward)
    return 4 * rows * sources * static_cast<double>(s.hidden) / (cluster ? kRemote : kCache);
  const double bytes = 4 * rows * sources * p.group * p.units;  // sent, and as many received
  return cluster ? bytes / kRemote + bytes / kShared : 2 * bytes / kCache;
}

}  // namespace

SequencePlan plan_sequence(const SequenceShape& s, const DeviceFacts& device) {
  const bool tensor = s.element == 2, tf32 = s.element == 4 && s.tf32 && device.sm >= 80;
  const auto plan_of = [&](int layers) {
    const SequencePlan plan = plan_layers(s, layers, device, tensor);
    const bool none = plan.kernel == SequenceKernel::kPerStep;
    // Backward, layers too wide for that have the kernel without.
    if (tensor && s.backward && none) return plan_layers(s, layers, device, false);
    if (!tf32) return plan;
    SequencePlan rounded = plan_layers(s, layers, device, true), exact = plan;
    rounded.tf32 = true;
    if (!none) exact.cycles += moved(s, plan);  // as is counted for tensor cores
    if (rounded.kernel == SequenceKernel::kPerStep) return exact;
    return none || rounded.cycles < kLessExact * exact.cycles ? rounded : exact;
  };
  const SequencePlan single = plan_of(1);
  if (s.layers < 2 || s.layers > kMaxLayers || single.kernel == SequenceKernel::kPerStep)
    return single;
  // A wavefront takes a tick where single layers take a step each, one after another.
  const SequencePlan wave = plan_of(static_cast<int>(s.layers));
  const bool better = wave.kernel != SequenceKernel::kPerStep &&
                      wave.cycles < static_cast<double>(s.layers) * single.cycles;
  return better ? wave : single;
}

}  // namespace cuda
}  // namespace charlm
