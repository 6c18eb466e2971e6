// The Python type epkit_cpu._engine.Program.
#pragma once
#include "python.h"

namespace epk {

PyObject *make_program_type();  // a new reference, or null

}  // namespace epk
