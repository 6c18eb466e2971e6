#include "tile_f32.h"

namespace EPK_NS {
namespace {

template <int MR, int NV, bool TWO> TileFunction choose(int rows, int64_t row) {
  if constexpr (MR == 0) {
    return nullptr;
  } else {
    if (rows == MR) {
      if (row == BLOCK) return tile_f32<MR, NV, BLOCK, TWO, false>;
      if (row == 2 * BLOCK && NV == 2 && !TWO) return tile_f32<MR, NV, NV == 2 && !TWO ? 2 * BLOCK : 0, TWO, false>;
      return tile_f32<MR, NV, 0, TWO, false>;
    }
    return choose<MR - (TWO ? 2 : 1), NV, TWO>(rows, row);
  }
}

template <int MR, int NV> TileFunction choose_product(int rows) {
  if constexpr (MR == 0) return nullptr;
  else return rows == MR ? tile_f32<MR, NV, BLOCK, false, true> : choose_product<MR - 1, NV>(rows);
}

}  // namespace

TileFunction tile_for(int rows, int vectors, int64_t row) {
  return vectors == 1 ? choose<TILE_ROWS, 1, false>(rows, row) : choose<TILE_ROWS, 2, false>(rows, row);
}

TileFunction product_tile_for(int rows, int vectors) {
  return vectors == 1 ? choose_product<TILE_ROWS, 1>(rows) : choose_product<TILE_ROWS, 2>(rows);
}

TileFunction double_tile_for(int pixels, int vectors, int64_t row) {
  return vectors == 1 ? choose<TILE_ROWS, 1, true>(2 * pixels, row)
                      : choose<TILE_ROWS, 2, true>(2 * pixels, row);
}

}  // namespace EPK_NS
