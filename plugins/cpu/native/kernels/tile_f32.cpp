#include "tile_f32.h"

namespace EPK_NS {
namespace {

template <int MR, int NV, bool TWO> TileFunction choose(int rows, bool blocked) {
  if constexpr (MR == 0) {
    return nullptr;
  } else {
    if (rows == MR) return blocked ? tile_f32<MR, NV, BLOCK, TWO> : tile_f32<MR, NV, 0, TWO>;
    return choose<MR - (TWO ? 2 : 1), NV, TWO>(rows, blocked);
  }
}

}  // namespace

TileFunction tile_for(int rows, int vectors, bool blocked) {
  return vectors == 1 ? choose<TILE_ROWS, 1, false>(rows, blocked) : choose<TILE_ROWS, 2, false>(rows, blocked);
}

TileFunction double_tile_for(int pixels, int vectors, bool blocked) {
  return vectors == 1 ? choose<TILE_ROWS, 1, true>(2 * pixels, blocked)
                      : choose<TILE_ROWS, 2, true>(2 * pixels, blocked);
}

}  // namespace EPK_NS
