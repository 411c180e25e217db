// Few steps of an LSTM from tensors of Python; see kernels/native/steps.py for the arguments.
#pragma once

#include <Python.h>

namespace charlm {

PyObject* few_steps(PyObject*, PyObject* const* args, Py_ssize_t count);

// The parameters of a module by the names in its _flat_weights_names, from its __dict__; None where
// an attribute hides one of them, or one is not there.
PyObject* registered_weights(PyObject*, PyObject* own);

}  // namespace charlm
