// Included before every kernel and launcher: a launch is noted, with its arguments as they are,
// and not run.
#pragma once

#define cudaLaunchKernelEx run_on_host
#include "cuda_runtime.h"
#undef cudaLaunchKernelEx

namespace recorded {

void begin(const void* kernel, const cudaLaunchConfig_t& config);
void argument(const void* bytes, size_t size, size_t alignment);
void end();

template <class T>
void argument(const T& value) {
  argument(&value, sizeof value, alignof(T));
}

}  // namespace recorded

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments... arguments) {
  recorded::begin(reinterpret_cast<const void*>(kernel), *config);
  (recorded::argument<Parameters>(arguments), ...);
  recorded::end();
  return cudaSuccess;
}
