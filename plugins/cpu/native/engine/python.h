// Python and NumPy as all sources of the engine see them, and a reference that gives itself up.
#pragma once
#define PY_SSIZE_T_CLEAN
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL epkit_cpu_numpy
#ifndef EPK_IMPORTS_NUMPY  // module.cpp does, once for all
#define NO_IMPORT_ARRAY
#endif
#include <Python.h>
#include <numpy/arrayobject.h>

namespace epk {

struct Reference {
  PyObject *object;
  explicit Reference(PyObject *o = nullptr) : object(o) {}
  Reference(const Reference &) = delete;
  ~Reference() { Py_XDECREF(object); }
  PyObject *release() { PyObject *o = object; object = nullptr; return o; }
  explicit operator bool() const { return object != nullptr; }
};

}  // namespace epk
