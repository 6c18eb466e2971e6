#include "tile_f32.h"

namespace EPK_NS {
namespace {

template <int MR, int NV, bool TWO> TileFunction choose(int rows, int64_t row) {
  if constexpr (MR == 0) {
    return nullptr;
  } else {
    if (rows == MR) {
      if (row == BLOCK) return tile_f32<MR, NV, BLOCK, TWO>;
      if (row == 2 * BLOCK && NV == 2 && !TWO) return tile_f32<MR, NV, NV == 2 && !TWO ? 2 * BLOCK : 0, TWO>;
      return tile_f32<MR, NV, 0, TWO>;
    }
    return choose<MR - (TWO ? 2 : 1), NV, TWO>(rows, row);
  }
}

}  // namespace

TileFunction tile_for(int rows, int vectors, int64_t row) {
  return vectors == 1 ? choose<TILE_ROWS, 1, false>(rows, row) : choose<TILE_ROWS, 2, false>(rows, row);
}

TileFunction double_tile_for(int pixels, int vectors, int64_t row) {
  return vectors == 1 ? choose<TILE_ROWS, 1, true>(2 * pixels, row)
                      : choose<TILE_ROWS, 2, true>(2 * pixels, row);
}

}  // namespace EPK_NS
