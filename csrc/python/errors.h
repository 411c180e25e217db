// What is done where Python's error is set on the way to a kernel: the long way raises it again, in
// its own words. A signal's (KeyboardInterrupt) is no Exception, and stays.
#pragma once

#include <Python.h>

namespace charlm {

inline void forget_exception() {
  if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_Exception)) PyErr_Clear();
}

// A function's result where it has none: None for the long way; null where a signal asks to stop.
inline PyObject* nothing() {
  forget_exception();
  if (PyErr_Occurred()) return nullptr;
  Py_RETURN_NONE;
}

}  // namespace charlm
