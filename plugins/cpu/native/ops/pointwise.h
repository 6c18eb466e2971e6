// Fused elementwise chains: a short program over registers, each a tile of one value that stays in the L1 cache.
#pragma once
#include "ops.h"

namespace EPK_NS {

// Element types of registers. The lowering packs these numbers; it reads the names from the module.
#define EPK_TILE_TYPES(X) \
  X(float32, float) X(float64, double) X(int8, int8_t) X(int16, int16_t) X(int32, int32_t) X(int64, int64_t) \
  X(uint8, uint8_t) X(uint16, uint16_t) X(uint32, uint32_t) X(uint64, uint64_t) X(bool, bool8) \
  X(float16, half) X(bfloat16, bf16)

enum TileType {
#define X(name, type) TILE_##name,
  EPK_TILE_TYPES(X)
#undef X
  TILE_TYPES
};

struct Instruction {
  int32_t op, type;
  int32_t to, a, b, c;  // registers: inputs first, then literals, then temporaries; -1: none
  double x, y;          // parameters, such as the slope of LeakyRelu
};

struct Literal {
  double number;  // floats
  int64_t whole;  // integers and bool
  int32_t type, unused;
};

struct Chain {
  int32_t n_in, n_literals, n_temporaries, n_instructions;
  int32_t n_out, tile, cost, unused;
  // then: Literal[n_literals], Instruction[n_instructions], int32_t[n_out] registers

  const Literal *literals() const { return reinterpret_cast<const Literal *>(this + 1); }
  const Instruction *instructions() const { return reinterpret_cast<const Instruction *>(literals() + n_literals); }
  const int32_t *results() const { return reinterpret_cast<const int32_t *>(instructions() + n_instructions); }
};

// Computes n elements; 0, or 1 for an integer division by zero.
typedef int (*TileFunction)(const Instruction &how, void *to, const void *a, const void *b, const void *c, int64_t n);

// Null where an operation has no meaning for the type.
TileFunction tile_function(int op, int type);
// Between float32 and the type, with scale and zero point as parameters; null where it is not of 8 bits.
TileFunction quantise_function(int to);
TileFunction dequantise_function(int from);
int tile_ops();
const char *tile_op_name(int op);

}  // namespace EPK_NS
