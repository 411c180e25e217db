// Few steps of an LSTM from tensors of Python.
#pragma once

#include <Python.h>

#include <cstdint>

#include "python/plain_tensor.h"
#include "python/reference.h"

namespace charlm {

// What a kernel for unpacked weights is for: so many rows in all, and where there are more units
// than `cached_units`, so many steps.
struct FewLimits {
  int64_t rows, cached_units, steps;
};

struct FewResults {
  Reference y, h_n, c_n;
};

enum class Ran { yes, not_for_it, error };  // error: and Python's error is set

// T steps of L layers of H units by B rows.
//
//   x: (T, B, I), or if `batch_first` (B, T, I), as y then is.
//   h_0, c_0: (L, B, H), or both null for zeros, and then `layers` and `units` are L and H.
//   weights: a tuple by layer, w_ih, w_hh and if `has_bias` b_ih and b_hh, as torch.nn.LSTM has
//     them.
//
// It is not for it where any of these is no plain tensor on the CPU, of one type that the kernels
// have, in the right shape, where a weight is not contiguous, or where there are too many rows.
Ran run_few_steps(const Torch& torch, PyObject* x, bool batch_first, PyObject* h_0, PyObject* c_0,
                  int64_t layers, int64_t units, PyObject* weights, bool has_bias,
                  const FewLimits& limits, FewResults& to);

// The same for Python; see kernels/native/steps.py for the arguments.
PyObject* few_steps(PyObject*, PyObject* const* args, Py_ssize_t count);

}  // namespace charlm
