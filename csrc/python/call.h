// How functions that Python calls past torch's dispatcher take their arguments and run.
#pragma once

#include <Python.h>

#include <cstdint>
#include <exception>
#include <string>

#include "cpu/steps/steps.h"

namespace charlm {

// Positional arguments one after the other; Python's error is set where one does not fit.
class Arguments {
 public:
  Arguments(PyObject* const* args, Py_ssize_t count) : next_(args), end_(args + count) {}
  Py_ssize_t left() const { return end_ - next_; }
  PyObject* object() { return *next_++; }
  bool flag() { return *next_++ == Py_True; }
  int64_t integer() { return PyLong_AsLongLong(*next_++); }
  void* address() { return PyLong_AsVoidPtr(*next_++); }
  CellWeights weights() {
    const void *w_ih = address(), *w_hh = address(), *b_ih = address();
    return {w_ih, w_hh, b_ih, address()};
  }

 private:
  PyObject* const* next_;
  PyObject* const* end_;
};

// Calls run(), `unlocked` without Python's lock. False, and Python's error is set, where it throws.
template <class Run>
bool ran(const Run& run, bool unlocked) {
  bool failed = false;
  std::string error;
  PyThreadState* const state = unlocked ? PyEval_SaveThread() : nullptr;
  try {
    run();
  } catch (const std::exception& e) {
    failed = true;
    error = e.what();
  }
  if (unlocked) PyEval_RestoreThread(state);
  if (failed) PyErr_SetString(PyExc_RuntimeError, error.c_str());
  return !failed;
}

// The same as a function of Python that returns None.
template <class Run>
PyObject* call(const Run& run, bool unlocked = true) {
  if (PyErr_Occurred() || !ran(run, unlocked)) return nullptr;
  Py_RETURN_NONE;
}

// Multiply-adds, some 0.1 ms, from which others may have Python's lock meanwhile: to have it back
// can take as long as another thread's turn, 5 ms.
constexpr double kWorthUnlocking = 1.5e6;

inline PyMethodDef fast(const char* name,
                        PyObject* (*call)(PyObject*, PyObject* const*, Py_ssize_t)) {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(call)), METH_FASTCALL,
          nullptr};
}

}  // namespace charlm
