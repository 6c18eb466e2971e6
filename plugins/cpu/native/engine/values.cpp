#include "values.h"

#include <cstring>

namespace epk {
namespace {

void free_capsule(PyObject *capsule) { aligned_free(PyCapsule_GetPointer(capsule, nullptr)); }

PyObject *array_over(const Frame &frame, int slot, PyObject *base) {  // steals base
  const DLTensor &tensor = frame.slots[slot].tensor;
  npy_intp dims[EPK_MAX_RANK];
  for (int i = 0; i < tensor.ndim; i++) dims[i] = npy_intp(tensor.shape[i]);
  auto *descr = (PyArray_Descr *)frame.program.slots[slot].descr;
  Py_INCREF(descr);
  PyObject *array = PyArray_NewFromDescr(&PyArray_Type, descr, tensor.ndim, dims, nullptr, tensor.data,
                                         NPY_ARRAY_CARRAY, nullptr);
  if (!array) {
    Py_DECREF(base);
    return nullptr;
  }
  if (PyArray_SetBaseObject((PyArrayObject *)array, base) < 0) {
    Py_DECREF(array);
    return nullptr;
  }
  PyArray_UpdateFlags((PyArrayObject *)array, NPY_ARRAY_ALIGNED);  // a constant may lie anywhere in a file
  return array;
}

PyObject *copy_of(const Frame &frame, int slot) {
  const DLTensor &tensor = frame.slots[slot].tensor;
  npy_intp dims[EPK_MAX_RANK];
  for (int i = 0; i < tensor.ndim; i++) dims[i] = npy_intp(tensor.shape[i]);
  auto *descr = (PyArray_Descr *)frame.program.slots[slot].descr;
  Py_INCREF(descr);
  PyObject *array = PyArray_Empty(tensor.ndim, dims, descr, 0);
  if (array) memcpy(PyArray_DATA((PyArrayObject *)array), tensor.data, size_t(PyArray_NBYTES((PyArrayObject *)array)));
  return array;
}

}  // namespace

PyObject *failure_type = nullptr;

void collect(Frame &frame) {
  while (!frame.garbage.empty()) {
    PyObject *object = frame.garbage.back();
    frame.garbage.pop_back();
    Py_DECREF(object);
  }
}

PyObject *shown(Frame &frame, int number) {
  Slot &slot = frame.slots[number];
  if (slot.array) return slot.array;
  if (slot.buffer == ABSENT) return Py_None;
  Buffer &buffer = frame.buffers[slot.buffer];
  if (buffer.owner == Owner::heap) {
    PyObject *capsule = PyCapsule_New(buffer.memory, nullptr, free_capsule);
    if (!capsule) return nullptr;
    buffer.owner = Owner::object;
    buffer.object = capsule;
  }
  if (buffer.owner == Owner::object) {
    Py_INCREF(buffer.object);
    slot.array = array_over(frame, number, buffer.object);
  } else {
    slot.array = copy_of(frame, number);
  }
  return slot.array;
}

PyObject *handed_over(Frame &frame, int number) {
  Slot &slot = frame.slots[number];
  if (slot.buffer == ABSENT) {
    PyObject *value = slot.array ? slot.array : Py_None;
    Py_INCREF(value);
    return value;
  }
  Buffer &buffer = frame.buffers[slot.buffer];
  if (buffer.owner == Owner::heap && buffer.refs == 1) {
    PyObject *capsule = PyCapsule_New(buffer.memory, nullptr, free_capsule);
    if (!capsule) return nullptr;
    buffer.owner = Owner::none;
    return array_over(frame, number, capsule);
  }
  if (buffer.owner == Owner::object && buffer.refs == 1 && slot.array && slot.array == buffer.object &&
      Py_REFCNT(slot.array) == 2 && PyArray_CHKFLAGS((PyArrayObject *)slot.array, NPY_ARRAY_OWNDATA | NPY_ARRAY_WRITEABLE)) {
    Py_INCREF(slot.array);
    return slot.array;
  }
  return copy_of(frame, number);
}

bool set_failure(long step, int status, const char *message, PyObject *inputs) {
  Reference arguments(Py_BuildValue("(lisO)", step, status, message, inputs));
  if (arguments) PyErr_SetObject(failure_type, arguments.object);
  return false;
}

PyObject *described(const Frame &frame, const Step &step) {
  PyObject *list = PyList_New(Py_ssize_t(step.inputs.size()));
  for (size_t i = 0; list && i < step.inputs.size(); i++) {
    PyObject *item = Py_None;
    int number = step.inputs[i];
    if (number == ABSENT || frame.slots[number].tensor.ndim < 0) {
      Py_INCREF(item);
    } else {
      const DLTensor &tensor = frame.slots[number].tensor;
      PyObject *shape = PyList_New(tensor.ndim);
      for (int j = 0; shape && j < tensor.ndim; j++) PyList_SET_ITEM(shape, j, PyLong_FromLongLong(tensor.shape[j]));
      item = shape ? Py_BuildValue("(ON)", frame.program.slots[number].descr, shape) : nullptr;
      if (!item) {
        Py_DECREF(list);
        return nullptr;
      }
    }
    PyList_SET_ITEM(list, Py_ssize_t(i), item);
  }
  return list;
}

bool receive(Frame &frame, int number, PyObject *value, long step) {
  if (number == ABSENT) return true;
  const SlotType &type = frame.program.slots[number];
  Slot &slot = frame.slots[number];
  if (type.dtype.bits == 0 || value == Py_None) {
    Py_INCREF(value);
    slot.array = value;
    return true;
  }
  PyObject *array = PyArray_FROM_OF(value, NPY_ARRAY_CARRAY_RO | NPY_ARRAY_NOTSWAPPED);
  if (!array) return false;
  auto *a = (PyArrayObject *)array;
  if (!PyArray_EquivTypes(PyArray_DESCR(a), (PyArray_Descr *)type.descr) || PyArray_NDIM(a) > EPK_MAX_RANK) {
    Reference text(PyUnicode_FromFormat("a value of type %R and rank %d where %R was expected",
                                        (PyObject *)PyArray_DESCR(a), PyArray_NDIM(a), type.descr));
    Py_DECREF(array);
    return text && set_failure(step, EPK_INVALID, PyUnicode_AsUTF8(text.object));
  }
  int64_t dims[EPK_MAX_RANK];
  for (int i = 0; i < PyArray_NDIM(a); i++) dims[i] = PyArray_DIM(a, i);
  frame.borrow(number, PyArray_DATA(a), PyArray_NDIM(a), dims, array);
  Py_INCREF(array);
  Buffer &buffer = frame.buffers[slot.buffer];
  buffer.owner = Owner::object;  // a view of it may outlive this slot
  buffer.object = array;
  return true;
}

}  // namespace epk
