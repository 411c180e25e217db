// charlm_fast._host: facts about the build and this machine. No torch in here.
#include <pybind11/pybind11.h>

#include "cpu_features.h"

namespace py = pybind11;

namespace {

py::dict build_info() {
  py::dict info;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#elif defined(__GNUC__)
  info["compiler"] = "gcc " __VERSION__;
#else
  info["compiler"] = "unknown";
#endif
  info["cxx_standard"] = static_cast<long>(__cplusplus);
  info["torch_version"] = CHARLM_TORCH_VERSION;
  info["cuda_version"] = CHARLM_CUDA_VERSION;
  info["cuda_why_not"] = CHARLM_CUDA_WHY_NOT;
  info["cuda_architectures"] = CHARLM_CUDA_ARCHITECTURES;
  info["source_hash"] = CHARLM_SOURCE_HASH;
  return info;
}

py::dict cpu_features() {
  py::dict features;
  for (const charlm::CpuFeature& feature : charlm::cpu_features())
    features[feature.name] = feature.present;
  return features;
}

}  // namespace

PYBIND11_MODULE(_host, m) {
  m.doc() = "Facts about the charlm_fast build and this machine.";
  m.def("build_info", &build_info,
        "Compiler, torch and CUDA versions of the build, and a hash of its sources.");
  m.def("cpu_features", &cpu_features, "Whether this CPU and system offer each vector extension.");
}
