// Programs from the plain tuples that Python packs.
#pragma once
#include "program.h"
#include "python.h"

namespace epk {

// Slots, inputs, constants, steps, outputs and loops (null: none), each a sequence of tuples. False: a Python error is
// set. May throw std::bad_alloc.
bool read_program(PyObject *slots, PyObject *inputs, PyObject *constants, PyObject *steps, PyObject *outputs,
                  PyObject *loops, Program &program);
// Gives up the program's references.
void release(Program &program);

}  // namespace epk
