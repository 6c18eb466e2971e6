// Tiles of 8-bit and bfloat16 products: sums only, to a small buffer; what happens to them is done by its reader.
#pragma once
#include "tile.h"

namespace EPK_NS {

template <class Op> struct TileRaw : Reduction<Op> {
  int32_t *sums;       // rows of PANEL lanes (of float32 where the product is), 64-byte aligned
  int rows, vectors;   // rows in 1..TILE_ROWS, of both halves together
  bool two;            // two image rows, rows / 2 pixels of each
};

// Defined in tile_raw.cpp.
void tile_raw(const TileRaw<MulInt8> &t);
void tile_raw(const TileRaw<MulBf16> &t);

}  // namespace EPK_NS
