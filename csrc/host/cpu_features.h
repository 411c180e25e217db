#pragma once

#include <vector>

namespace charlm {

struct CpuFeature {
  const char* name;
  bool present;
};

std::vector<CpuFeature> cpu_features();

}  // namespace charlm
