#include "reader.h"

#include <cstring>

namespace epk {
namespace {

template <class T> bool read_ints(PyObject *sequence, std::vector<T> &numbers) {
  Reference fast(PySequence_Fast(sequence, "expected a sequence of ints"));
  if (!fast) return false;
  Py_ssize_t n = PySequence_Fast_GET_SIZE(fast.object);
  for (Py_ssize_t i = 0; i < n; i++) {
    long long number = PyLong_AsLongLong(PySequence_Fast_GET_ITEM(fast.object, i));
    if (number == -1 && PyErr_Occurred()) return false;
    if (number != (long long)T(number)) {
      PyErr_Format(PyExc_OverflowError, "%lld is too large", number);
      return false;
    }
    numbers.push_back(T(number));
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
    if (!read_ints(shape, input.shape)) return false;
    input.ndim = int(input.shape.size());
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
  auto fits = [](PyArrayObject *a) {  // alignment is the compiler's business: what only copies bytes needs none
    return PyArray_IS_C_CONTIGUOUS(a) && PyArray_ISNOTSWAPPED(a) && PyArray_NDIM(a) <= EPK_MAX_RANK;
  };
  if (numeric && (!PyArray_Check(array) || !fits((PyArrayObject *)array))) {
    PyErr_SetString(PyExc_ValueError, "a constant must be a contiguous array in the machine's byte order");
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

bool read_over(PyObject *over, Step &step) {
  if (!read_ints(over, step.over)) return false;
  bool good = step.over.size() % 2 == 0;
  for (size_t i = 0; good && i < step.over.size(); i += 2) {
    const int output = step.over[i], input = step.over[i + 1];
    good = output >= 0 && output < int(step.outputs.size()) && input >= 0 && input < int(step.inputs.size()) && step.inputs[input] != ABSENT;
  }
  if (!good) PyErr_SetString(PyExc_ValueError, "expected pairs of an output and an input");
  return good;
}

bool read_join(PyObject *axis, Step &step, Program &program) {
  const long number = PyLong_AsLong(axis);
  if (number == -1 && PyErr_Occurred()) return false;
  bool good = step.outputs.size() == 1 && step.outputs[0] != ABSENT;
  for (int slot : step.inputs) good &= slot != ABSENT;
  if (!good) {
    PyErr_SetString(PyExc_ValueError, "a join needs one output and all of its inputs");
    return false;
  }
  step.join = int(program.joins.size());
  program.joins.push_back(Join{step.outputs[0], int(number), step.inputs});
  return true;
}

bool read_step(PyObject *item, Program &program) {
  Step step;
  PyObject *kernel, *inputs, *outputs, *frees, *fallback = Py_None, *over = nullptr, *axis = Py_None;
  Py_buffer attributes;
  if (!PyArg_ParseTuple(item, "Oy*OOO|OOO", &kernel, &attributes, &inputs, &outputs, &frees, &fallback, &over, &axis)) return false;
  step.attributes.resize((size_t(attributes.len) + sizeof(max_align_t) - 1) / sizeof(max_align_t) + 1);
  memcpy(step.attributes.data(), attributes.buf, size_t(attributes.len));
  PyBuffer_Release(&attributes);
  if (!read_ints(inputs, step.inputs) || !read_ints(outputs, step.outputs) || !read_ints(frees, step.frees)) return false;
  if (!slots_in_range(program, step.inputs, ABSENT) || !slots_in_range(program, step.outputs, ABSENT) ||
      !slots_in_range(program, step.frees, 0)) return false;
  if (over && !read_over(over, step)) return false;
  if (axis != Py_None && !read_join(axis, step, program)) return false;
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

// Which slots may be written into the result of a Concat: what kernels make, no Python reads, and that is there once.
void find_parts(Program &program) {
  std::vector<bool> made(program.slots.size(), false);
  for (const Step &step : program.steps)
    if (step.kernel)
      for (int slot : step.outputs)
        if (slot != ABSENT) made[slot] = true;
  for (size_t i = 0; i < program.joins.size(); i++) {
    const std::vector<int> &inputs = program.joins[i].inputs;
    for (size_t j = 0; j < inputs.size(); j++) {
      SlotType &type = program.slots[inputs[j]];
      int times = 0;
      for (int other : inputs) times += other == inputs[j];
      if (!made[inputs[j]] || type.escapes || type.join != ABSENT || times != 1) continue;
      type.join = int(i);
      type.part = int(j);
    }
  }
}

}  // namespace

bool read_program(PyObject *slots, PyObject *inputs, PyObject *constants, PyObject *steps, PyObject *outputs,
                  Program &program) {
  if (!read_all(slots, program, read_slot) || !read_all(inputs, program, read_input) ||
      !read_all(constants, program, read_constant) || !read_all(steps, program, read_step) ||
      !read_all(outputs, program, read_output)) return false;
  find_parts(program);
  return true;
}

void release(Program &program) {
  for (SlotType &slot : program.slots) Py_XDECREF(slot.descr);
  for (Input &input : program.inputs) Py_XDECREF(input.name);
  for (Constant &constant : program.constants) Py_XDECREF(constant.array);
  for (Step &step : program.steps) Py_XDECREF(step.callable);
  for (PyObject *name : program.output_names) Py_XDECREF(name);
  Py_XDECREF((PyObject *)program.account.owner);
}

}  // namespace epk
