// Few steps of an LSTM from tensors of Python.
#pragma once

#include <Python.h>

#include <cstdint>

#include "python/lstm_call.h"

namespace charlm {

// What a kernel for unpacked weights is for: so many rows in all, and where there are more units
// than `cached_units`, so many steps.
struct FewLimits {
  int64_t rows, cached_units, steps;

  bool hold(const LstmCall& call) const {
    return call.rows() <= rows && (call.sizes.H <= cached_units || call.steps() <= steps);
  }
};

// Of what was read and is within the limits.
Ran run_few_steps(const Torch& torch, LstmCall& call, LstmResults& to);

// The same for Python; see kernels/native/steps.py for the arguments.
PyObject* few_steps(PyObject*, PyObject* const* args, Py_ssize_t count);

}  // namespace charlm
