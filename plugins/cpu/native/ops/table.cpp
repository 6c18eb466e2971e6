#include "../engine/operators.h"
#include "ops.h"
#include "pointwise.h"
#include "types.h"
#include "table.h"

namespace EPK_NS {
#define X(name) EPK_OPERATOR(name);
EPK_OPERATORS(X)
#undef X
}  // namespace EPK_NS

using namespace EPK_NS;

extern "C" const epk_operator EPK(operators)[] = {
#define X(name) {#name, name},
    EPK_OPERATORS(X)
#undef X
    {nullptr, nullptr},
};

extern "C" int EPK(tile_ops)() { return tile_ops(); }
extern "C" const char *EPK(tile_op_name)(int op) { return tile_op_name(op); }
extern "C" int EPK(tile_types)() { return TILE_TYPES; }
extern "C" const char *EPK(tile_type_name)(int type) {
  static const char *const names[] = {
#define X(name, type) #name,
      EPK_TILE_TYPES(X)
#undef X
  };
  return names[type];
}
extern "C" int EPK(tile_knows)(int op, int type) { return tile_function(op, type) != nullptr; }
