// charlm_fast._host: facts about the build and this machine. No torch in here, and of Python only
// the limited C API, so that one file serves every Python, as _C does; pybind11 has no such mode.
#include <Python.h>

#include "cpu_features.h"

namespace {

#if defined(__clang__)
constexpr char compiler[] = "clang " __clang_version__;
#elif defined(__GNUC__)
constexpr char compiler[] = "gcc " __VERSION__;
#else
constexpr char compiler[] = "unknown";
#endif

PyObject* build_info(PyObject*, PyObject*) {
  return Py_BuildValue("{s:s,s:l,s:s,s:s,s:s,s:s,s:s}", "compiler", compiler, "cxx_standard",
                       static_cast<long>(__cplusplus), "torch_version", CHARLM_TORCH_VERSION,
                       "cuda_version", CHARLM_CUDA_VERSION, "cuda_why_not", CHARLM_CUDA_WHY_NOT,
                       "cuda_architectures", CHARLM_CUDA_ARCHITECTURES, "source_hash",
                       CHARLM_SOURCE_HASH);
}

PyObject* cpu_features(PyObject*, PyObject*) {
  PyObject* features = PyDict_New();
  if (!features) return nullptr;
  for (const charlm::CpuFeature& feature : charlm::cpu_features())
    if (PyDict_SetItemString(features, feature.name, feature.present ? Py_True : Py_False)) {
      Py_DECREF(features);
      return nullptr;
    }
  return features;
}

PyMethodDef methods[] = {
    {"build_info", build_info, METH_NOARGS,
     "Compiler, torch and CUDA versions of the build, and a hash of its sources."},
    {"cpu_features", cpu_features, METH_NOARGS,
     "Whether this CPU and system offer each vector extension."},
    {}};

}  // namespace

PyMODINIT_FUNC PyInit__host(void) {
  static struct PyModuleDef module = {PyModuleDef_HEAD_INIT,
                                      "_host",
                                      "Facts about the charlm_fast build and this machine.",
                                      -1,
                                      methods,
                                      nullptr,
                                      nullptr,
                                      nullptr,
                                      nullptr};
  return PyModule_Create(&module);
}
