// Values between a frame's slots and Python. Python's lock is held.
#pragma once
#include "program.h"
#include "python.h"

namespace epk {

extern PyObject *failure_type;  // epkit_cpu._engine.Failure(step, status, message, inputs)

// Raises Failure; always false.
bool set_failure(long step, int status, const char *message, PyObject *inputs = Py_None);
// (dtype, shape) of a step's inputs, None where one is absent. A new reference.
PyObject *described(const Frame &frame, const Step &step);
// A value from outside or from a Python step. Borrows `value`; false: an error is set.
bool receive(Frame &frame, int slot, PyObject *value, long step);
// The value for Python to read; the frame keeps the reference.
PyObject *shown(Frame &frame, int slot);
// The value as a result that shares memory with nothing else. A new reference.
PyObject *handed_over(Frame &frame, int slot);
// Gives up the references that the frame no longer needs.
void collect(Frame &frame);

}  // namespace epk
