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

// What fused chains are made of; the same in every instruction set, so any that is built can say it.
#if defined(EPK_HAS_baseline) || !(defined(EPK_HAS_avx512) || defined(EPK_HAS_avx2) || defined(EPK_HAS_neon))
#define EPK_BUILT(name) name##_baseline
#elif defined(EPK_HAS_avx2)
#define EPK_BUILT(name) name##_avx2
#elif defined(EPK_HAS_avx512)
#define EPK_BUILT(name) name##_avx512
#else
#define EPK_BUILT(name) name##_neon
#endif
int EPK_BUILT(epk_tile_ops)();
int EPK_BUILT(epk_tile_types)();
const char *EPK_BUILT(epk_tile_op_name)(int op);
const char *EPK_BUILT(epk_tile_type_name)(int type);
int EPK_BUILT(epk_tile_knows)(int op, int type);
}
