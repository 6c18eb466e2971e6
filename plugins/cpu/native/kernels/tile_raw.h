// Tiles of 8-bit and bfloat16 products: sums only, to a small buffer; what happens to them is done by its reader.
#pragma once
#include "tile.h"

namespace EPK_NS {

// Lanes between rows of sums: bfloat16 tiles write one half of a panel of 2 * PANEL columns (gemm16.cpp).
template <class Op> constexpr int SUMS_ROW = PANEL;
template <> constexpr int SUMS_ROW<MulBf16> = 2 * PANEL;

template <class Op> struct TileRaw : Reduction<Op> {
  int32_t *sums;       // rows of SUMS_ROW lanes (of float32 where the product is), 64-byte aligned
  int rows, vectors;   // rows in 1..TILE_ROWS, of both halves together
  bool two;            // two image rows, rows / 2 pixels of each
};

// Defined in tile_raw.cpp.
void tile_raw(const TileRaw<MulInt8> &t);
void tile_raw(const TileRaw<MulBf16> &t);

}  // namespace EPK_NS
