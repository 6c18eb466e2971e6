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

// What fused chains are made of; the same in every instruction set.
int epk_tile_ops_baseline();
int epk_tile_types_baseline();
const char *epk_tile_op_name_baseline(int op);
const char *epk_tile_type_name_baseline(int type);
int epk_tile_knows_baseline(int op, int type);
}
