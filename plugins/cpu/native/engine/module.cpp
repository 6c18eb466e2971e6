// The door to Python: programs are made from plain tuples, take NumPy arrays and give NumPy arrays.
#define PY_SSIZE_T_CLEAN
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#include <Python.h>
#include <numpy/arrayobject.h>

#include <cstring>
#include <memory>
#include <new>

#include "isa.h"
#include "pool.h"
#include "program.h"

using namespace epk;

namespace {

PyObject *failure_type = nullptr;

struct Reference {
  PyObject *object;
  explicit Reference(PyObject *o = nullptr) : object(o) {}
  Reference(const Reference &) = delete;
  ~Reference() { Py_XDECREF(object); }
  PyObject *release() { PyObject *o = object; object = nullptr; return o; }
  explicit operator bool() const { return object != nullptr; }
};

// ---- from Python's tuples ----

bool read_ints(PyObject *sequence, std::vector<int> &numbers) {
  Reference fast(PySequence_Fast(sequence, "expected a sequence of ints"));
  if (!fast) return false;
  Py_ssize_t n = PySequence_Fast_GET_SIZE(fast.object);
  for (Py_ssize_t i = 0; i < n; i++) {
    long number = PyLong_AsLong(PySequence_Fast_GET_ITEM(fast.object, i));
    if (number == -1 && PyErr_Occurred()) return false;
    numbers.push_back(int(number));
  }
  return true;
}

bool slots_in_range(const Program &program, const std::vector<int> &slots, int least) {
  for (int slot : slots) {
    if (slot < least || slot >= int(program.slots.size())) {
      PyErr_Format(PyExc_ValueError, "there is no slot %d", slot);
      return false;
    }
  }
  return true;
}

bool read_slot(PyObject *item, Program &program) {
  SlotType type;
  int code, bits, escapes;
  PyObject *descr;
  if (!PyArg_ParseTuple(item, "iiOp", &code, &bits, &descr, &escapes)) return false;
  type.dtype = DLDataType{uint8_t(code), uint8_t(bits), 1};
  if (bits != 0) {
    if (!PyArray_DescrCheck(descr)) {
      PyErr_SetString(PyExc_TypeError, "a slot of a known type needs a NumPy dtype");
      return false;
    }
    Py_INCREF(descr);
    type.descr = descr;
  }
  type.escapes = escapes;
  program.slots.push_back(type);
  return true;
}

bool read_input(PyObject *item, Program &program) {
  Input input;
  PyObject *name, *shape;
  if (!PyArg_ParseTuple(item, "UiO", &name, &input.slot, &shape)) return false;
  if (!slots_in_range(program, {input.slot}, 0)) return false;
  input.ndim = -1;
  if (shape != Py_None) {
    std::vector<int> dims;
    if (!read_ints(shape, dims)) return false;
    input.ndim = int(dims.size());
    input.shape.assign(dims.begin(), dims.end());
  }
  Py_INCREF(name);
  input.name = name;
  program.inputs.push_back(input);
  return true;
}

bool read_constant(PyObject *item, Program &program) {
  Constant constant;
  PyObject *array;
  if (!PyArg_ParseTuple(item, "iO", &constant.slot, &array)) return false;
  if (!slots_in_range(program, {constant.slot}, 0)) return false;
  bool numeric = program.slots[constant.slot].dtype.bits != 0;
  if (numeric && (!PyArray_Check(array) || !PyArray_ISCARRAY_RO((PyArrayObject *)array) ||
                  PyArray_NDIM((PyArrayObject *)array) > EPK_MAX_RANK)) {
    PyErr_SetString(PyExc_ValueError, "a constant must be a contiguous, aligned array");
    return false;
  }
  constant.tensor = DLTensor{nullptr, DLDevice{1, 0}, 0, program.slots[constant.slot].dtype, nullptr, nullptr, 0};
  if (numeric) {
    constant.tensor.data = PyArray_DATA((PyArrayObject *)array);
    constant.tensor.ndim = PyArray_NDIM((PyArrayObject *)array);
    for (int i = 0; i < constant.tensor.ndim; i++) constant.shape.push_back(PyArray_DIM((PyArrayObject *)array, i));
  }
  if (!program.constants.empty() && program.constants.back().slot >= constant.slot) {
    PyErr_SetString(PyExc_ValueError, "constants must come in the order of their slots");
    return false;
  }
  Py_INCREF(array);
  constant.array = array;
  program.constants.push_back(constant);
  return true;
}

bool read_step(PyObject *item, Program &program) {
  Step step;
  PyObject *kernel, *inputs, *outputs, *frees, *fallback = Py_None;
  Py_buffer attributes;
  if (!PyArg_ParseTuple(item, "Oy*OOO|O", &kernel, &attributes, &inputs, &outputs, &frees, &fallback)) return false;
  step.attributes.resize((size_t(attributes.len) + sizeof(max_align_t) - 1) / sizeof(max_align_t) + 1);
  memcpy(step.attributes.data(), attributes.buf, size_t(attributes.len));
  PyBuffer_Release(&attributes);
  if (!read_ints(inputs, step.inputs) || !read_ints(outputs, step.outputs) || !read_ints(frees, step.frees)) return false;
  if (!slots_in_range(program, step.inputs, ABSENT) || !slots_in_range(program, step.outputs, ABSENT) ||
      !slots_in_range(program, step.frees, 0)) return false;
  int arity = int(step.inputs.size() > step.outputs.size() ? step.inputs.size() : step.outputs.size());
  if (arity > program.max_arity) program.max_arity = arity;
  if (PyLong_Check(kernel)) {
    step.kernel = reinterpret_cast<epk_kernel>(PyLong_AsVoidPtr(kernel));
    if (!step.kernel) {
      if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "a kernel at address 0");
      return false;
    }
    if (fallback != Py_None) {
      Py_INCREF(fallback);
      step.callable = fallback;
    }
  } else {
    Py_INCREF(kernel);
    step.callable = kernel;
  }
  program.steps.push_back(std::move(step));
  return true;
}

bool read_output(PyObject *item, Program &program) {
  PyObject *name;
  int slot;
  if (!PyArg_ParseTuple(item, "Ui", &name, &slot) || !slots_in_range(program, {slot}, 0)) return false;
  Py_INCREF(name);
  program.output_names.push_back(name);
  program.outputs.push_back(slot);
  return true;
}

bool read_all(PyObject *sequence, Program &program, bool (*read)(PyObject *, Program &)) {
  Reference fast(PySequence_Fast(sequence, "expected a sequence"));
  if (!fast) return false;
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(fast.object); i++) {
    if (!read(PySequence_Fast_GET_ITEM(fast.object, i), program)) return false;
  }
  return true;
}

void release(Program &program) {
  for (SlotType &slot : program.slots) Py_XDECREF(slot.descr);
  for (Input &input : program.inputs) Py_XDECREF(input.name);
  for (Constant &constant : program.constants) Py_XDECREF(constant.array);
  for (Step &step : program.steps) Py_XDECREF(step.callable);
  for (PyObject *name : program.output_names) Py_XDECREF(name);
}

// ---- values ----

void collect(Frame &frame) {
  while (!frame.garbage.empty()) {
    PyObject *object = frame.garbage.back();
    frame.garbage.pop_back();
    Py_DECREF(object);
  }
}

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

// The value for Python to read; the frame keeps a reference. Returns a borrowed one.
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

// The value as a result that shares memory with nothing else. A new reference.
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

bool set_failure(long step, int status, const char *message, PyObject *inputs = Py_None) {
  Reference arguments(Py_BuildValue("(lisO)", step, status, message, inputs));
  if (arguments) PyErr_SetObject(failure_type, arguments.object);
  return false;
}

// (dtype, shape) of a step's inputs, None where one is absent.
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

// A value from outside or from a Python step. Borrows `value`.
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
  frame.buffers[number].owner = Owner::object;  // a view of it may outlive this slot
  frame.buffers[number].object = array;
  return true;
}

// ---- the program type ----

struct ProgramObject {
  PyObject_HEAD
  Program *program;
  std::vector<Frame *> *idle;
  ArenaStatistics *gone;  // of frames that are no more
  int frames;
  bool closed;
};

Frame *take_frame(ProgramObject *self) {
  if (!self->idle->empty()) {
    Frame *frame = self->idle->back();
    self->idle->pop_back();
    return frame;
  }
  Frame *frame = new (std::nothrow) Frame(*self->program);
  if (!frame) PyErr_NoMemory();
  return frame;
}

void drop_frame(ProgramObject *self, Frame *frame) {
  self->gone->allocations += frame->arena.statistics.allocations;
  self->gone->reused += frame->arena.statistics.reused;
  self->gone->peak += frame->arena.statistics.peak;
  delete frame;
}

void give_frame(ProgramObject *self, Frame *frame) {
  frame->clear();
  collect(*frame);
  if (self->closed) drop_frame(self, frame);
  else self->idle->push_back(frame);
}

bool python_step(Frame &frame, size_t index, PyObject *context) {
  const Step &step = frame.program.steps[index];
  Reference arguments(PyList_New(Py_ssize_t(step.inputs.size())));
  if (!arguments) return false;
  for (size_t i = 0; i < step.inputs.size(); i++) {
    PyObject *value = step.inputs[i] == ABSENT ? Py_None : shown(frame, step.inputs[i]);
    if (!value) return false;
    Py_INCREF(value);
    PyList_SET_ITEM(arguments.object, Py_ssize_t(i), value);
  }
  Reference results(PyObject_CallFunctionObjArgs(step.callable, context, arguments.object, nullptr));
  if (!results) return false;
  if (!PyTuple_Check(results.object)) {
    PyErr_SetString(PyExc_TypeError, "a Python step must return a tuple");
    return false;
  }
  for (size_t i = 0; i < step.outputs.size(); i++) {
    PyObject *value = Py_ssize_t(i) < PyTuple_GET_SIZE(results.object) ? PyTuple_GET_ITEM(results.object, i) : Py_None;
    if (!receive(frame, step.outputs[i], value, long(index))) return false;
  }
  frame.drop_after(step);
  return true;
}

bool observed(PyObject *observer, size_t step) {
  if (observer == Py_None) return true;
  Reference number(PyLong_FromSize_t(step));
  if (!number) return false;
  Reference result(PyObject_CallOneArg(observer, number.object));
  return bool(result);
}

// All steps. With observers, one at a time, and they are told before and after each.
bool run_steps(Frame &frame, PyObject *context, PyObject *before, PyObject *after) {
  size_t step = 0, count = frame.program.steps.size();
  bool watched = before != Py_None;
  while (step < count) {
    if (watched && !observed(before, step)) return false;
    size_t started = step;
    int status;
    Py_BEGIN_ALLOW_THREADS
    status = frame.run(step, watched ? step + 1 : count);
    Py_END_ALLOW_THREADS
    collect(frame);
    if (status == EPK_UNSUPPORTED && frame.program.steps[step].callable) {
      for (int slot : frame.program.steps[step].outputs)
        if (slot != ABSENT) frame.drop(slot);
      status = AT_PYTHON;
    }
    if (status == AT_PYTHON) {
      if (!python_step(frame, step, context)) {
        if (!PyErr_ExceptionMatches(failure_type)) {
          // the caller wants to know which step raised
          PyObject *type, *value, *trace;
          PyErr_Fetch(&type, &value, &trace);
          PyErr_NormalizeException(&type, &value, &trace);
          if (trace) PyException_SetTraceback(value, trace);
          set_failure(long(step), EPK_FAILED, "");
          PyObject *type2, *value2, *trace2;
          PyErr_Fetch(&type2, &value2, &trace2);
          PyErr_NormalizeException(&type2, &value2, &trace2);
          PyException_SetCause(value2, value);  // steals
          Py_XDECREF(type);
          Py_XDECREF(trace);
          PyErr_Restore(type2, value2, trace2);
        }
        return false;
      }
      step++;
    } else if (status != EPK_OK) {
      Reference inputs(described(frame, frame.program.steps[step]));
      return inputs && set_failure(long(step), status, frame.message, inputs.object);
    }
    if (watched && !observed(after, started)) return false;
  }
  return true;
}

PyObject *program_run(PyObject *object, PyObject *const *arguments, Py_ssize_t count) {
  auto *self = (ProgramObject *)object;
  if (count != 4) return PyErr_Format(PyExc_TypeError, "run takes inputs, context, before, after");
  if (self->closed) return PyErr_Format(PyExc_RuntimeError, "the program is closed");
  Reference inputs(PySequence_Fast(arguments[0], "the inputs must be a sequence"));
  if (!inputs) return nullptr;
  const Program &program = *self->program;
  if (PySequence_Fast_GET_SIZE(inputs.object) != Py_ssize_t(program.inputs.size())) {
    return PyErr_Format(PyExc_ValueError, "expected %zu inputs", program.inputs.size());
  }
  Frame *frame = take_frame(self);
  if (!frame) return nullptr;
  Py_INCREF(object);
  bool good = true;
  for (size_t i = 0; good && i < program.inputs.size(); i++) {
    good = receive(*frame, program.inputs[i].slot, PySequence_Fast_GET_ITEM(inputs.object, i), -1);
  }
  PyObject *results = nullptr;
  if (good && run_steps(*frame, arguments[1], arguments[2], arguments[3])) {
    results = PyList_New(Py_ssize_t(program.outputs.size()));
    for (size_t i = 0; results && i < program.outputs.size(); i++) {
      PyObject *value = handed_over(*frame, program.outputs[i]);
      if (value) PyList_SET_ITEM(results, Py_ssize_t(i), value);
      else Py_CLEAR(results);
    }
  }
  give_frame(self, frame);
  Py_DECREF(object);
  return results;
}

// True if the array can be read as it is: no check of the session's is left to do.
bool fits(const Program &program, const Input &input, PyObject *value) {
  if (!PyArray_CheckExact(value)) return false;
  auto *array = (PyArrayObject *)value;
  const SlotType &type = program.slots[input.slot];
  if (type.dtype.bits == 0 || PyArray_TYPE(array) != ((PyArray_Descr *)type.descr)->type_num) return false;
  if (!PyArray_ISCARRAY_RO(array) || PyArray_NDIM(array) > EPK_MAX_RANK) return false;
  if (input.ndim >= 0) {
    if (PyArray_NDIM(array) != input.ndim) return false;
    for (int i = 0; i < input.ndim; i++) {
      if (input.shape[i] >= 0 && input.shape[i] != PyArray_DIM(array, i)) return false;
    }
  }
  return true;
}

// The shortest way: names to arrays in, names to arrays out. NotImplemented: something needs a closer look.
PyObject *program_feed(PyObject *object, PyObject *feeds) {
  auto *self = (ProgramObject *)object;
  const Program &program = *self->program;
  if (self->closed || !PyDict_CheckExact(feeds) || PyDict_GET_SIZE(feeds) != Py_ssize_t(program.inputs.size())) {
    Py_RETURN_NOTIMPLEMENTED;
  }
  for (const Input &input : program.inputs) {
    PyObject *value = PyDict_GetItemWithError(feeds, input.name);
    if (!value && PyErr_Occurred()) return nullptr;
    if (!value || !fits(program, input, value)) Py_RETURN_NOTIMPLEMENTED;
  }
  Frame *frame = take_frame(self);
  if (!frame) return nullptr;
  Py_INCREF(object);
  for (const Input &input : program.inputs) {
    auto *array = (PyArrayObject *)PyDict_GetItem(feeds, input.name);
    Py_INCREF(array);
    frame->borrow(input.slot, PyArray_DATA(array), PyArray_NDIM(array), (const int64_t *)PyArray_DIMS(array),
                  (PyObject *)array);
  }
  PyObject *results = nullptr;
  if (run_steps(*frame, Py_None, Py_None, Py_None)) {
    results = PyDict_New();
    for (size_t i = 0; results && i < program.outputs.size(); i++) {
      Reference value(handed_over(*frame, program.outputs[i]));
      if (!value || PyDict_SetItem(results, program.output_names[i], value.object) < 0) Py_CLEAR(results);
    }
  }
  give_frame(self, frame);
  Py_DECREF(object);
  return results;
}

PyObject *program_memory(PyObject *object, PyObject *) {
  auto *self = (ProgramObject *)object;
  ArenaStatistics sum = *self->gone;
  for (Frame *frame : *self->idle) {
    sum.held += frame->arena.statistics.held;
    sum.peak += frame->arena.statistics.peak;
    sum.allocations += frame->arena.statistics.allocations;
    sum.reused += frame->arena.statistics.reused;
  }
  return Py_BuildValue("(LLLL)", (long long)sum.held, (long long)sum.peak, (long long)sum.allocations,
                       (long long)sum.reused);
}

void drop_idle(ProgramObject *self) {
  while (!self->idle->empty()) {
    Frame *frame = self->idle->back();
    self->idle->pop_back();
    drop_frame(self, frame);
  }
}

PyObject *program_close(PyObject *object, PyObject *) {
  auto *self = (ProgramObject *)object;
  self->closed = true;
  drop_idle(self);
  Py_RETURN_NONE;
}

void program_dealloc(PyObject *object) {
  auto *self = (ProgramObject *)object;
  if (self->idle) drop_idle(self);
  delete self->idle;
  delete self->gone;
  if (self->program) release(*self->program);
  delete self->program;
  PyTypeObject *type = Py_TYPE(object);
  type->tp_free(object);
  Py_DECREF(type);
}

PyObject *program_new(PyTypeObject *type, PyObject *arguments, PyObject *) {
  PyObject *slots, *inputs, *constants, *steps, *outputs;
  int threads;
  if (!PyArg_ParseTuple(arguments, "OOOOOi", &slots, &inputs, &constants, &steps, &outputs, &threads)) return nullptr;
  auto *self = (ProgramObject *)type->tp_alloc(type, 0);
  if (!self) return nullptr;
  try {
    self->program = new Program;
    self->idle = new std::vector<Frame *>;
    self->gone = new ArenaStatistics;
    self->program->threads = threads;
    if (read_all(slots, *self->program, read_slot) && read_all(inputs, *self->program, read_input) &&
        read_all(constants, *self->program, read_constant) && read_all(steps, *self->program, read_step) &&
        read_all(outputs, *self->program, read_output)) {
      return (PyObject *)self;
    }
  } catch (const std::bad_alloc &) {
    PyErr_NoMemory();
  }
  Py_DECREF(self);
  return nullptr;
}

PyMethodDef program_methods[] = {
    {"run", (PyCFunction)(void *)program_run, METH_FASTCALL, "run(inputs, context, before, after) -> list of outputs"},
    {"feed", program_feed, METH_O, "feed(feeds) -> outputs by name, or NotImplemented"},
    {"memory", program_memory, METH_NOARGS, "bytes held, peak bytes, allocations, reuses"},
    {"close", program_close, METH_NOARGS, "give the memory back; runs under way end first"},
    {nullptr, nullptr, 0, nullptr},
};

PyType_Slot program_slots[] = {
    {Py_tp_new, (void *)program_new},
    {Py_tp_dealloc, (void *)program_dealloc},
    {Py_tp_methods, program_methods},
    {Py_tp_doc, (void *)"Program(slots, inputs, constants, steps, outputs, threads)"},
    {0, nullptr},
};

PyType_Spec program_spec = {"epkit_cpu._engine.Program", sizeof(ProgramObject), 0, Py_TPFLAGS_DEFAULT, program_slots};

// ---- the module ----

PyObject *module_isas(PyObject *, PyObject *) {
  Reference names(PyList_New(0));
  for (const Isa *isa = ISAS; names && isa->name; isa++) {
    if (!isa->present()) continue;
    Reference name(PyUnicode_FromString(isa->name));
    if (!name || PyList_Append(names.object, name.object) < 0) return nullptr;
  }
  return names.release();
}

PyObject *module_operators(PyObject *, PyObject *argument) {
  const char *wanted = PyUnicode_AsUTF8(argument);
  if (!wanted) return nullptr;
  for (const Isa *isa = ISAS; isa->name; isa++) {
    if (strcmp(isa->name, wanted) != 0 || !isa->present()) continue;
    Reference table(PyDict_New());
    for (const epk_operator *item = isa->operators; table && item->name; item++) {
      Reference address(PyLong_FromVoidPtr((void *)item->kernel));
      if (!address || PyDict_SetItemString(table.object, item->name, address.object) < 0) return nullptr;
    }
    return table.release();
  }
  return PyErr_Format(PyExc_ValueError, "no instruction set %s here", wanted);
}

PyObject *names_of(int count, const char *(*name)(int)) {
  Reference names(PyList_New(0));
  for (int i = 0; names && i < count; i++) {
    Reference text(PyUnicode_FromString(name(i)));
    if (!text || PyList_Append(names.object, text.object) < 0) return nullptr;
  }
  return names.release();
}

PyObject *module_tile_ops(PyObject *, PyObject *) { return names_of(epk_tile_ops_baseline(), epk_tile_op_name_baseline); }

PyObject *module_tile_types(PyObject *, PyObject *) {
  return names_of(epk_tile_types_baseline(), epk_tile_type_name_baseline);
}

PyObject *module_tile_knows(PyObject *, PyObject *arguments) {
  int op, type;
  if (!PyArg_ParseTuple(arguments, "ii", &op, &type)) return nullptr;
  return PyBool_FromLong(epk_tile_knows_baseline(op, type));
}

PyObject *module_cpus(PyObject *, PyObject *) { return PyLong_FromLong(usable_cpus()); }

PyMethodDef module_methods[] = {
    {"isas", module_isas, METH_NOARGS, "the instruction sets that can be used, best first"},
    {"operators", module_operators, METH_O, "the addresses of an instruction set's kernels, by name"},
    {"tile_ops", module_tile_ops, METH_NOARGS, "the operations of fused chains, by number"},
    {"tile_types", module_tile_types, METH_NOARGS, "the element types of fused chains, by number"},
    {"tile_knows", module_tile_knows, METH_VARARGS, "whether an operation has a meaning for a type (numbers)"},
    {"cpus", module_cpus, METH_NOARGS, "the CPUs that this process may use: affinity and quota"},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_engine", "The native engine.", -1, module_methods,
                      nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__engine() {
  import_array();
  Reference result(PyModule_Create(&module));
  if (!result) return nullptr;
  PyObject *type = PyType_FromSpec(&program_spec);
  if (!type || PyModule_AddObject(result.object, "Program", type) < 0) return nullptr;
  failure_type = PyErr_NewException("epkit_cpu._engine.Failure", PyExc_Exception, nullptr);
  if (!failure_type) return nullptr;
  Py_INCREF(failure_type);
  if (PyModule_AddObject(result.object, "Failure", failure_type) < 0) return nullptr;
  return result.release();
}
