// The instruction sets that this library was compiled for and this CPU has.
#pragma once
#include "operators.h"

namespace epk {

struct Isa {
  const char *name;
  const epk_operator *operators;
  bool (*present)();
};

extern const Isa ISAS[];  // best first; a null name ends it

}  // namespace epk
