// Tiles of products in float16, of CPUs whose float16 arithmetic is twice as fast as float32's (AVX512-FP16).
//
// The factors are bfloat16 numbers that a power of two has brought into float16's range (pack16.h), where they are exact.
// Sums stay in float16 for eight steps; four such sums are added pair by pair, then they go to the float32 sums. An
// error is one rounding to 2^-11 of each partial sum, where rounding the factors to bfloat16 has cost two to 2^-8 of each
// product. Measured against float64, the whole is 1.03 times the error of exact products of bfloat16 where terms have
// signs by chance, and up to 1.47 times where all have one sign; tests/test_native_narrow.py holds it below 1.5.
#pragma once
#include "tile.h"

namespace EPK_NS {

constexpr int HALF_LANES = 32;          // of a vector of float16
constexpr int WIDE_PANEL = 2 * PANEL;   // columns of a packed panel of 16-bit numbers

struct TileHalf {
  const int32_t *a;         // a number of A in a lane, twice
  const int32_t *a_second;  // as in Reduction
  int64_t a_row;
  const int64_t *offsets;
  int64_t a_block, blocks;  // of BLOCK steps each
  const uint16_t *b;        // WIDE_PANEL numbers a step
  float *sums;              // rows of WIDE_PANEL, 64-byte aligned
  int rows, vectors;        // rows in 1..TILE_ROWS, of both halves together; vectors of HALF_LANES columns, 1 or 2
  bool two;
  Ahead ahead;  // as in Reduction
};

// Whether this source was compiled for an instruction set that may have such arithmetic.
#if defined(__AVX512BF16__)
#define EPK_HALF_TILES 1
#else
#define EPK_HALF_TILES 0
#endif

void tile_half(const TileHalf &t);  // tile_half.cpp

}  // namespace EPK_NS
