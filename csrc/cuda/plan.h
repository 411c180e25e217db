// Which kernels serve the recurrence of an LSTM layer, decided from sizes alone: no torch, no
// CUDA headers, so that the choice is tested where there is no GPU.
#pragma once

#include <array>
#include <cstddef>
#include <string>

namespace charlm {
namespace cuda {

enum class SequenceKernel {
  kPerStep,  // a GEMM and a fused cell a step
  kCluster,  // one launch; blocks of a cluster exchange through distributed shared memory
  kGrid,     // one launch; blocks exchange through global memory and wait for the whole grid
};

struct DeviceFacts {
  int sm;                   // 10 major + minor
  int multiprocessors;      // of which a grid-synchronising launch may fill each once
  long long shared_memory;  // bytes a block can have
  int max_cluster;          // blocks; 1 where there are no clusters
  // Of blocks that each fill a multiprocessor, the clusters of 1 << k that run at the same time, or
  // 0 where nobody asked. Fewer than multiprocessors / size: parts of the chip differ in length.
  std::array<int, 5> clusters;
  bool stacked;  // blocks may share a multiprocessor, to measure what keeping them apart gains

  // Clusters of `size` blocks, a power of two, that run at the same time.
  long long clusters_of(int size) const {
    std::size_t k = 0;
    while (1 << k < size) ++k;
    return k < clusters.size() && clusters[k] ? clusters[k] : multiprocessors / size;
  }
};

struct SequenceShape {
  long long hidden, batch, layers;
  int element;  // bytes of a stored value: 4, 2 or 8
  bool projected, packed, backward;
  bool tf32;  // whether float may be multiplied in TF32
};

constexpr int kMaxLayers = 8;  // of one launch

// Bytes by which rows of weights in shared memory are apart modulo the 128 of the banks, where a
// team of lanes reads 4 values a lane side by side and teams next to it read the next rows: values
// of 2 bytes go out by half warps, of two teams.
constexpr int kRowPad = 16, kNarrowRowPad = 64;
inline int row_pad(int element) { return element == 2 ? kNarrowRowPad : kRowPad; }

// Floats behind the rows of a tile, of which lanes read neighbouring units.
constexpr int kTilePad = 4;

// Products of 32 columns, of 16 in TF32, of which a warp can hold the weights of 8 units in
// registers: 64 of them.
constexpr int kHeldProducts = 4;

// Of a step's cell: five exponentials and divisions in a row.
constexpr double kCellCycles = 450;

// Bytes a cycle from other blocks' shared memory and from the second-level cache: taken for
// granted.
constexpr double kRemote = 12, kCache = 24;

// Bytes of barriers at the end of a block's shared memory, in a cluster.
constexpr int kMailbox = 32;

// A group of `group` blocks a layer runs `tile` rows of the batch through all steps; each of its
// blocks owns `units` hidden units and keeps their 4 units x H weights in shared memory. With
// several layers in one launch they run as a wavefront, each a step behind the one below it, and
// the blocks keep the 4 units x H weights of their input as well.
struct SequencePlan {
  SequenceKernel kernel;
  int layers, group, units, tile, groups, threads;
  int rows;    // of a thread's register tile: 8, or 1 for one or two rows in all
  int stride;  // elements between rows of weights in shared memory
  int dgates;  // copies of them backward: 2 spare a barrier of the block a step
  // Tensor cores: of a sum's columns forward, each a warp's; of the blocks' parts backward in a
  // grid, each a thread's. 0: not on those.
  int parts;
  bool tf32;                // what is float is multiplied in TF32
  bool held;                // whether those warps hold their weights in registers
  long long shared_memory;  // bytes a block
  long long exchange;       // floats in global memory
  double cycles;            // of a step of all its layers: an estimate, by which plans compare
  std::string reason;       // of kPerStep, else empty
};

SequencePlan plan_sequence(const SequenceShape& shape, const DeviceFacts& device);

// One line: the kernel and its blocks, or why there is one launch a step.
std::string describe(const SequencePlan& plan);

}  // namespace cuda
}  // namespace charlm
