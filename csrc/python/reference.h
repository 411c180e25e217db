// A reference of one's own to an object of Python, or none.
#pragma once

#include <Python.h>

namespace charlm {

class Reference {
 public:
  explicit Reference(PyObject* object = nullptr) : object_(object) {}
  Reference(const Reference&) = delete;
  Reference& operator=(const Reference&) = delete;
  ~Reference() { Py_XDECREF(object_); }
  PyObject* get() const { return object_; }
  void reset(PyObject* object) {
    Py_XDECREF(object_);
    object_ = object;
  }
  PyObject* release() {
    PyObject* const object = object_;
    object_ = nullptr;
    return object;
  }

 private:
  PyObject* object_;
};

// An attribute, a reference of one's own; null, and Python's error, where it or what it is of is
// not there.
inline PyObject* attribute(PyObject* of, const char* name) {
  return of ? PyObject_GetAttrString(of, name) : nullptr;
}

}  // namespace charlm
