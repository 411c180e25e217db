// What of a program's state keeps a call from being plain: asked of torch and of this package at
// each call, by the functions of C behind what Python would ask.
#pragma once

#include <Python.h>

#include "python/plain_tensor.h"

namespace charlm {

// A module's variables, of which one is looked up at each call.
class Variable {
 public:
  Variable() = default;
  Variable(PyObject* of_module, const char* name);
  bool there() const { return values_; }
  // A borrowed reference, or null.
  PyObject* get() const { return PyDict_GetItem(values_, name_); }

 private:
  PyObject *values_ = nullptr, *name_ = nullptr;
};

// An answer that fails counts as no, and Python's error is set then.
class Surroundings {
 public:
  // `dispatch`: charlm_fast.ops.dispatch. False, and Python's error may be set, where something
  // is missing.
  bool find(PyObject* dispatch);

  // Whether plain eager code without gradients runs: no compiler, tracer, transform or mode but a
  // default device sees operations, no autocast, no forward mode.
  bool are_plain() const;

  // Whether nobody asked for a backend, and no check found the CPU's kernels slow anywhere, so that
  // backend `cpu` runs. No Python runs.
  bool nothing_asked() const;

  // Where somebody did: whether backend `cpu` is to run few steps from a state like `h`. Of null it
  // is not where that depends on the size.
  bool choose_cpu(PyObject* h) const;

  // Whether no profiler waits for the operations' names.
  bool not_profiled() const;

 private:
  Question dispatch_modes_, transforms_, tracing_, function_modes_, autocast_, forced_, profiler_;
  Variable compiling_, forward_level_, cpu_loses_;
  PyObject *function_mode_ = nullptr, *default_device_ = nullptr, *is_autocast_ = nullptr,
           *chooses_cpu_ = nullptr, *asks_loses_ = nullptr, *on_cpu_ = nullptr,
           *operation_ = nullptr;

  bool only_default_devices() const;
};

}  // namespace charlm
