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

// The attributes hold the target and the loop, as int64.
bool read_control(const char *name, Step &step) {
  static const char *const names[] = {"", "move", "branch", "begin", "trip", "next", "finish"};
  for (int i = 1; name && i < int(sizeof names / sizeof *names); i++)
    if (strcmp(name, names[i]) == 0) step.control = Control(i);
  int64_t numbers[2] = {0, ABSENT};
  memcpy(numbers, step.attributes.data(), sizeof numbers);
  step.target = int(numbers[0]);
  step.loop = int(numbers[1]);
  if (step.control == Control::none && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "there is no such step");
  return step.control != Control::none;
}

// What the engine relies on: targets and loops are there, and each step has the inputs and outputs of its kind.
bool check_control(const Program &program) {
  bool good = true;
  for (const Step &step : program.steps) {
    if (step.control == Control::none) continue;
    const size_t n_in = step.inputs.size(), n_out = step.outputs.size();
    const bool loops = step.control >= Control::begin;
    good &= step.target >= 0 && step.target <= int(program.steps.size());
    good &= !loops || (step.loop >= 0 && step.loop < int(program.loops.size()));
    if (!good) break;
    const Loop none{false, 0, {}, {}}, &loop = loops ? program.loops[step.loop] : none;
    const size_t sliced = loop.sliced.size(), carried = size_t(loop.carried), first = loop.scan ? 0 : 1;
    const bool reads_all = step.control == Control::move || step.control == Control::branch || loop.scan;
    for (size_t i = 0; reads_all && step.control != Control::next && i < n_in; i++) good &= step.inputs[i] != ABSENT;
    for (size_t i = 0; step.control == Control::next && i < first + carried && i < n_in; i++) good &= step.inputs[i] != ABSENT;
    switch (step.control) {
      case Control::move: good &= n_in == n_out; break;
      case Control::branch: good &= n_in <= 1 && n_out == 0; break;
      case Control::begin: good &= n_in >= (loop.scan ? sliced : 2); break;
      case Control::trip: good &= loop.scan ? n_in == sliced && n_out == sliced : n_in == 0 && n_out == 2; break;
      case Control::next: good &= n_in == first + carried + loop.collected.size() && n_out == carried; break;
      default: good &= n_in == 0;
    }
    const bool writes_all = step.control == Control::move || step.control == Control::next;
    for (size_t i = 0; writes_all && i < n_out; i++) good &= step.outputs[i] != ABSENT;
    for (size_t i = 0; step.control == Control::next && i < loop.collected.size(); i++)
      good &= loop.collected[i].slot == ABSENT || step.inputs[first + carried + i] != ABSENT;
  }
  if (!good) PyErr_SetString(PyExc_ValueError, "a step of control flow does not fit its loop");
  return good;
}

bool read_step(PyObject *item, Program &program) {
  Step step;
  PyObject *kernel, *inputs, *outputs, *frees, *fallback = Py_None, *over = nullptr, *axis = Py_None;
  Py_buffer attributes;
  if (!PyArg_ParseTuple(item, "Oy*OOO|OOOi", &kernel, &attributes, &inputs, &outputs, &frees, &fallback, &over, &axis,
                        &step.region)) return false;
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
  if (PyUnicode_Check(kernel)) {
    if (!read_control(PyUnicode_AsUTF8(kernel), step)) return false;
  } else if (PyLong_Check(kernel)) {
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

// (is a Scan, values carried, [(axis, backwards) of what is sliced], [(slot, axis, backwards, shape of a slice)])
bool read_loop(PyObject *item, Program &program) {
  Loop loop;
  int scan;
  PyObject *sliced, *collected;
  if (!PyArg_ParseTuple(item, "piOO", &scan, &loop.carried, &sliced, &collected)) return false;
  loop.scan = scan;
  Reference inputs(PySequence_Fast(sliced, "expected a sequence")), outputs(PySequence_Fast(collected, "expected a sequence"));
  if (!inputs || !outputs) return false;
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(inputs.object); i++) {
    long long axis;
    int backwards;
    if (!PyArg_ParseTuple(PySequence_Fast_GET_ITEM(inputs.object, i), "Lp", &axis, &backwards)) return false;
    loop.sliced.push_back(Sliced{axis, backwards != 0});
  }
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(outputs.object); i++) {
    Collected output;
    long long axis;
    int backwards;
    PyObject *shape;
    if (!PyArg_ParseTuple(PySequence_Fast_GET_ITEM(outputs.object, i), "iLpO", &output.slot, &axis, &backwards, &shape)) return false;
    if (!slots_in_range(program, {output.slot}, ABSENT) || !read_ints(shape, output.shape)) return false;
    output.axis = axis;
    output.backwards = backwards;
    loop.collected.push_back(std::move(output));
  }
  program.loops.push_back(std::move(loop));
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
// All in one region: what a trip makes for a Concat, it joins.
void find_parts(Program &program) {
  std::vector<int> made(program.slots.size(), ABSENT), regions(program.joins.size());
  for (const Step &step : program.steps) {
    if (step.join != ABSENT) regions[step.join] = step.region;
    if (step.kernel)
      for (int slot : step.outputs)
        if (slot != ABSENT) made[slot] = step.region;
  }
  for (size_t i = 0; i < program.joins.size(); i++) {
    const std::vector<int> &inputs = program.joins[i].inputs;
    for (size_t j = 0; j < inputs.size(); j++) {
      SlotType &type = program.slots[inputs[j]];
      int times = 0;
      for (int other : inputs) times += other == inputs[j];
      if (made[inputs[j]] != regions[i] || type.escapes || type.join != ABSENT || times != 1) continue;
      type.join = int(i);
      type.part = int(j);
    }
  }
}

}  // namespace

bool read_program(PyObject *slots, PyObject *inputs, PyObject *constants, PyObject *steps, PyObject *outputs,
                  PyObject *loops, Program &program) {
  if (!read_all(slots, program, read_slot) || !read_all(inputs, program, read_input) ||
      !read_all(constants, program, read_constant) || !read_all(steps, program, read_step) ||
      !read_all(outputs, program, read_output) || (loops && !read_all(loops, program, read_loop)) ||
      !check_control(program)) return false;
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
