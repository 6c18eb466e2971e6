#include "tile_raw.h"

#include <type_traits>

namespace EPK_NS {
namespace {

template <class Op, int MR, int NV, int ROW, bool TWO> void one(const TileRaw<Op> &t) {
  typename Op::sum acc[MR][NV];
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) acc[r][v] = typename Op::sum{};
  constexpr bool AHEAD = std::is_same_v<Op, MulBf16> && !TWO;  // products of bfloat16 set it
  reduce<Op, MR, NV, ROW, TWO, AHEAD>(t, acc);
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) store_as(t.sums + r * SUMS_ROW<Op> + v * VL, acc[r][v]);
}

template <class Op, int MR, int NV, bool TWO> void choose(const TileRaw<Op> &t) {
  if constexpr (MR > 0) {
    if (t.rows != MR) return choose<Op, MR - (TWO ? 2 : 1), NV, TWO>(t);
    if (!TWO && t.a_row == BLOCK) one<Op, MR, NV, BLOCK, TWO>(t);
    else if (!TWO && t.a_row == BLOCK / 2) one<Op, MR, NV, TWO ? 0 : BLOCK / 2, TWO>(t);
    else if (t.a_row == BLOCK / 4) one<Op, MR, NV, BLOCK / 4, TWO>(t);
    else one<Op, MR, NV, 0, TWO>(t);
  }
}

}  // namespace

void tile_raw(const TileRaw<MulInt8> &t) {
  if (t.two) return t.vectors == 1 ? choose<MulInt8, TILE_ROWS, 1, true>(t) : choose<MulInt8, TILE_ROWS, 2, true>(t);
  return t.vectors == 1 ? choose<MulInt8, TILE_ROWS, 1, false>(t) : choose<MulInt8, TILE_ROWS, 2, false>(t);
}

void tile_raw(const TileRaw<MulBf16> &t) {
  if (t.two) return choose<MulBf16, TILE_ROWS, 2, true>(t);
  choose<MulBf16, TILE_ROWS, 2, false>(t);
}

}  // namespace EPK_NS
