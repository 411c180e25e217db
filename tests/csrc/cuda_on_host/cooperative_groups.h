// Clusters and cooperative grids on the host: barriers, and the shared memory of other blocks.
#pragma once

#include "cuda_runtime.h"

namespace cooperative_groups {

struct Together {
  void sync() const { cuda_on_host::machine.park(cuda_on_host::State::kTogether); }
  // A fiber gives way where it waits: what it stores in between comes before that.
  struct Token {};
  Token barrier_arrive() const { return {}; }
  void barrier_wait(Token = {}) const { sync(); }
  template <class T>
  T* map_shared_rank(T* own, unsigned rank) const {
    return cuda_on_host::in_block(own, rank);
  }
};

inline Together this_cluster() { return {}; }
inline Together this_grid() { return {}; }

}  // namespace cooperative_groups
