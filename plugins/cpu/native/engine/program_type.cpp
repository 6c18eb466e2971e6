// The Python type of a program: it runs with arrays in and arrays out, from any number of threads at once.
#include <new>

#include "pool.h"
#include "program_type.h"
#include "reader.h"
#include "values.h"

using namespace epk;

namespace {

struct ProgramObject {
  PyObject_HEAD
  Program *program;
  std::vector<Frame *> *idle;
  ArenaStatistics *gone;  // of frames that are no more
  bool closed;
};

Frame *take_frame(ProgramObject *self) {
  if (!self->idle->empty()) {
    Frame *frame = self->idle->back();
    self->idle->pop_back();
    return frame;
  }
  try {
    return new Frame(*self->program);
  } catch (const std::bad_alloc &) {
    PyErr_NoMemory();
    return nullptr;
  }
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
  if (!self->closed) {
    try {
      return self->idle->push_back(frame);
    } catch (const std::bad_alloc &) {  // the next run makes another
    }
  }
  drop_frame(self, frame);
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
  const RunScope scope(frame.program.threads, frame.shared_work());
  frame.begin_run();
  size_t step = 0, count = frame.program.steps.size();
  bool watched = before != Py_None;
  while (step < count) {
    if (watched && !observed(before, step)) return false;
    size_t started = step;
    int status;
    Py_BEGIN_ALLOW_THREADS
    status = frame.run(step, watched);
    Py_END_ALLOW_THREADS
    collect(frame);
    if (status == EPK_OK && step < count && PyErr_CheckSignals() < 0) return false;
    if (status == EPK_UNSUPPORTED && frame.program.steps[step].callable) {
      for (int slot : frame.program.steps[step].outputs)
        if (slot != ABSENT) frame.drop(slot);
      status = AT_PYTHON;
    }
    if (status == AT_PYTHON) {
      frame.abandon_join(frame.program.steps[step]);
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
  Frame *frame = take_frame(self);
  if (!frame) return nullptr;
  Py_INCREF(object);
  PyObject *results = nullptr;
  bool good = true;
  for (const Input &input : program.inputs) {  // looked up once: a key's __eq__ may change the dict
    PyObject *value = PyDict_GetItemWithError(feeds, input.name);
    good = value && fits(program, input, value);
    if (!good) break;
    auto *array = (PyArrayObject *)value;
    Py_INCREF(array);
    frame->borrow(input.slot, PyArray_DATA(array), PyArray_NDIM(array), (const int64_t *)PyArray_DIMS(array),
                  (PyObject *)array);
  }
  if (!good && !PyErr_Occurred()) {
    results = Py_NotImplemented;
    Py_INCREF(results);
  }
  if (good && run_steps(*frame, Py_None, Py_None, Py_None)) {
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
  int64_t spared = 0;
  for (Frame *frame : *self->idle) {
    sum.held += frame->arena.statistics.held;
    sum.peak += frame->arena.statistics.peak;
    sum.allocations += frame->arena.statistics.allocations;
    sum.reused += frame->arena.statistics.reused;
    sum.least += frame->arena.statistics.least;
    spared += frame->spared();
  }
  return Py_BuildValue("(LLLLLL)", (long long)sum.held, (long long)sum.peak, (long long)sum.allocations,
                       (long long)sum.reused, (long long)sum.least, (long long)spared);
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

// Asks the budget, a Python object, from wherever a run has come to.
bool reserve_in_budget(void *owner, int64_t nbytes) {
  const PyGILState_STATE state = PyGILState_Ensure();
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  const char *method = nbytes < 0 ? "release" : "reserve";
  Reference answer(PyObject_CallMethod((PyObject *)owner, method, "L", (long long)(nbytes < 0 ? -nbytes : nbytes)));
  const bool granted = answer && PyObject_IsTrue(answer.object) == 1;
  if (PyErr_Occurred()) PyErr_WriteUnraisable((PyObject *)owner);
  PyErr_Restore(type, value, trace);
  PyGILState_Release(state);
  return granted;
}

PyObject *program_limit(PyObject *object, PyObject *budget) {
  auto *self = (ProgramObject *)object;
  if (self->program->account.owner || !self->idle->empty()) {
    return PyErr_Format(PyExc_RuntimeError, "a budget must be set once, and before the first run");
  }
  Py_INCREF(budget);
  self->program->account = Account{reserve_in_budget, budget};
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
  PyObject *slots, *inputs, *constants, *steps, *outputs, *loops = nullptr;
  int threads;
  if (!PyArg_ParseTuple(arguments, "OOOOOi|O", &slots, &inputs, &constants, &steps, &outputs, &threads, &loops)) {
    return nullptr;
  }
  auto *self = (ProgramObject *)type->tp_alloc(type, 0);
  if (!self) return nullptr;
  try {
    self->program = new Program;
    self->idle = new std::vector<Frame *>;
    self->gone = new ArenaStatistics;
    self->program->threads = threads < 1 ? 1 : threads;
    if (read_program(slots, inputs, constants, steps, outputs, loops, *self->program)) return (PyObject *)self;
  } catch (const std::bad_alloc &) {
    PyErr_NoMemory();
  }
  Py_DECREF(self);
  return nullptr;
}

PyMethodDef program_methods[] = {
    {"run", (PyCFunction)(void *)program_run, METH_FASTCALL, "run(inputs, context, before, after) -> list of outputs"},
    {"feed", program_feed, METH_O, "feed(feeds) -> outputs by name, or NotImplemented"},
    {"memory", program_memory, METH_NOARGS, "bytes: held, peak; allocations, reuses; of the latest run: lower bound, bytes spared"},
    {"limit", program_limit, METH_O, "limit(budget): an object with reserve(nbytes) -> bool and release(nbytes)"},
    {"close", program_close, METH_NOARGS, "give the memory back; runs under way end first"},
    {nullptr, nullptr, 0, nullptr},
};

PyType_Slot program_slots[] = {
    {Py_tp_new, (void *)program_new},
    {Py_tp_dealloc, (void *)program_dealloc},
    {Py_tp_methods, program_methods},
    {Py_tp_doc, (void *)"Program(slots, inputs, constants, steps, outputs, threads, loops=())"},
    {0, nullptr},
};

PyType_Spec program_spec = {"epkit_cpu._engine.Program", sizeof(ProgramObject), 0, Py_TPFLAGS_DEFAULT, program_slots};

}  // namespace

PyObject *epk::make_program_type() { return PyType_FromSpec(&program_spec); }
