// A module's call as one question to C.
#pragma once

#include <Python.h>

namespace charlm {

// Of what kernels/native/steps.py says: a function of (module, input, hx), which returns what
// LSTM.forward returns, or None where the call is not for it.
PyObject* module_call(PyObject*, PyObject* const* args, Py_ssize_t count);

// The parameters of a module by the names in its _flat_weights_names, from its __dict__; None where
// an attribute hides one of them, or one is not there.
PyObject* registered_weights(PyObject*, PyObject* own);

}  // namespace charlm
