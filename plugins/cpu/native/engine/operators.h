// The operators of one instruction set, as kernels of the public interface.
#pragma once
#include "epkit_kernel.h"

struct epk_operator {
  const char *name;  // null ends the table
  epk_kernel kernel;
};

extern "C" {
extern const epk_operator epk_operators_avx512[];
extern const epk_operator epk_operators_avx2[];
extern const epk_operator epk_operators_neon[];
extern const epk_operator epk_operators_baseline[];

// What fused chains are made of; the same in every instruction set, so that any that is built will do.
#if defined(EPK_HAS_baseline)
#define EPK_ANY_TILE(name) epk_tile_##name##_baseline
#elif defined(EPK_HAS_avx2)
#define EPK_ANY_TILE(name) epk_tile_##name##_avx2
#elif defined(EPK_HAS_neon)
#define EPK_ANY_TILE(name) epk_tile_##name##_neon
#else
#define EPK_ANY_TILE(name) epk_tile_##name##_avx512
#endif
int EPK_ANY_TILE(ops)();
int EPK_ANY_TILE(types)();
const char *EPK_ANY_TILE(op_name)(int op);
const char *EPK_ANY_TILE(type_name)(int type);
int EPK_ANY_TILE(knows)(int op, int type);
}
