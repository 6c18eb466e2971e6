// The instruction sets that this library was compiled for and this CPU has.
#pragma once
#include "operators.h"

namespace epk {

struct Isa {
  const char *name;
  const epk_operator *operators;
  bool (*present)();
};

// Whether the CPU's dot products of bfloat16 do twice the multiply-adds of float32's in a second. From Zen 4 on they do;
// Sapphire Rapids does half as many with them (without AMX, which is another unit).
bool fast_bf16_dot();

extern const Isa ISAS[];  // best first; a null name ends it

}  // namespace epk
