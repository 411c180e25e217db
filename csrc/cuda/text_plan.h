// How the blocks of the device share the generation of texts, decided from sizes alone: no torch,
// no CUDA headers, so that the choice is tested where there is no GPU.
#pragma once

#include <string>

#include "plan.h"

namespace charlm {
namespace cuda {

enum class Wait {
  kBlock,    // a group is one block
  kCluster,  // the blocks of a group are a cluster
  kGrid,     // every group waits for all others
};

struct TextShape {
  long long hidden, layers, vocabulary, batch;
  long long inputs;      // columns of the embedding, 0 where it is folded into a table
  int element;           // bytes of a stored value: 4, 2 or 8
  bool weights_of_draw;  // top_p wants the weights of a row kept
};

// A group of `size` blocks runs `tile` rows of the batch from the first character to the last;
// each block owns `units` hidden units of every layer and `classes` rows of the head. Their
// weights stay in its shared memory as far as they fit, layers first; the rest comes from L2 at
// every step.
struct TextPlan {
  Wait wait;
  int size, groups, tile, units, classes, threads;
  int rows;                 // of a thread's register tile: 8, or 1 for one or two rows in all
  int columns;              // of a row of inputs in shared memory, the widest layer's
  int resident;             // layers, then the head, whose weights are in shared memory
  int drawers;              // warps that draw at a time, 0: the whole block draws row by row
  bool cache;               // whether a drawer has memory for the weights of a row
  long long shared_memory;  // bytes a block
  std::string reason;       // why nothing serves, else empty
};

inline long long padded(long long columns) { return (columns + 3) / 4 * 4; }

// Inputs of a layer side by side, each padded to four: what is below it, and its own state.
inline long long text_columns(const TextShape& s, long long layer) {
  return padded(layer ? s.hidden : s.inputs) + padded(s.hidden);
}

TextPlan plan_text(const TextShape& shape, const DeviceFacts& device);

// One line: how the blocks wait for each other, their number, and what stays on the chip.
std::string describe(const TextPlan& plan, long long layers);

}  // namespace cuda
}  // namespace charlm
