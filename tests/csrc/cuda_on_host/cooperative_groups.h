// Clusters and cooperative grids on the host: barriers, and the shared memory of other blocks.
#pragma once

#include "cuda_runtime.h"

namespace cooperative_groups {

struct Together {
  void sync() const { cuda_on_host::machine.park(cuda_on_host::State::kTogether); }
  template <class T>
  T* map_shared_rank(T* own, unsigned rank) const {
    return cuda_on_host::in_block(own, rank);
  }
};

inline Together this_cluster() { return {}; }
inline Together this_grid() { return {}; }

}  // namespace cooperative_groups
