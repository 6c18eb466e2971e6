// The door to Python: the module, and what it says of the library and the machine.
#define EPK_IMPORTS_NUMPY
#include "python.h"

#include <cstring>

#include "cpus.h"
#include "isa.h"
#include "program_type.h"
#include "values.h"

using namespace epk;

namespace {

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

PyObject *module_tile_ops(PyObject *, PyObject *) { return names_of(EPK_ANY_TILE(ops)(), EPK_ANY_TILE(op_name)); }

PyObject *module_tile_types(PyObject *, PyObject *) {
  return names_of(EPK_ANY_TILE(types)(), EPK_ANY_TILE(type_name));
}

PyObject *module_tile_knows(PyObject *, PyObject *arguments) {
  int op, type;
  if (!PyArg_ParseTuple(arguments, "ii", &op, &type)) return nullptr;
  return PyBool_FromLong(EPK_ANY_TILE(knows)(op, type));
}

PyObject *module_cpus(PyObject *, PyObject *) { return PyLong_FromLong(usable_cpus()); }

PyObject *module_fast_bf16_dot(PyObject *, PyObject *) { return PyBool_FromLong(fast_bf16_dot()); }

PyMethodDef module_methods[] = {
    {"isas", module_isas, METH_NOARGS, "the instruction sets that can be used, best first"},
    {"operators", module_operators, METH_O, "the addresses of an instruction set's kernels, by name"},
    {"tile_ops", module_tile_ops, METH_NOARGS, "the operations of fused chains, by number"},
    {"tile_types", module_tile_types, METH_NOARGS, "the element types of fused chains, by number"},
    {"tile_knows", module_tile_knows, METH_VARARGS, "whether an operation has a meaning for a type (numbers)"},
    {"cpus", module_cpus, METH_NOARGS, "the CPUs that this process may use: affinity and quota"},
    {"fast_bf16_dot", module_fast_bf16_dot, METH_NOARGS, "whether bfloat16 dot products outrun float32 multiply-adds"},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_engine", "The native engine.", -1, module_methods,
                      nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__engine() {
  import_array();
  Reference result(PyModule_Create(&module));
  if (!result) return nullptr;
  PyObject *type = make_program_type();
  if (!type || PyModule_AddObject(result.object, "Program", type) < 0) return nullptr;
  failure_type = PyErr_NewException("epkit_cpu._engine.Failure", PyExc_Exception, nullptr);
  if (!failure_type) return nullptr;
  Py_INCREF(failure_type);
  if (PyModule_AddObject(result.object, "Failure", failure_type) < 0) return nullptr;
  return result.release();
}
