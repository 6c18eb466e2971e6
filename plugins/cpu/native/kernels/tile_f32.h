// float32 tiles with their epilogue, chosen by rows and vectors at run time.
#pragma once
#include "activate.h"
#include "tile.h"

namespace EPK_NS {

constexpr int64_t LONG = 256;  // steps of a reduction

struct TileF32 : Reduction<MulF32> {
  float *c;
  float *c_second;    // as a_second
  int64_t c_row;      // elements between rows
  int64_t c_vector;   // elements between vectors
  bool accumulate;    // add to what c holds
  bool last;          // the reduction ends here: do the epilogue
  // The epilogue, moved to this tile: pointers to its first row and column.
  float scale, low, high;
  const float *bias;
  const float *row_bias;
  const float *add;
  const float *add_second;
  int64_t add_row, add_vector;
};

template <int MR, int NV, int ROW, bool TWO, bool AHEAD> void tile_f32(const TileF32 &t) {
  constexpr int HALF = TWO ? MR / 2 : MR;
  vf acc[MR][NV];
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) acc[r][v] = vf{};
  if (AHEAD && t.blocks * t.steps >= LONG) {  // time enough for the results' lines to come
#pragma GCC unroll 16
    for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++)
        __builtin_prefetch((r < HALF ? t.c + r * t.c_row : t.c_second + (r - HALF) * t.c_row) + v * t.c_vector, 1);
  }
  reduce<MulF32, MR, NV, ROW, TWO, AHEAD>(t, acc);
  if (t.accumulate) {
#pragma GCC unroll 16
    for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++)
        acc[r][v] += load((r < HALF ? t.c + r * t.c_row : t.c_second + (r - HALF) * t.c_row) + v * t.c_vector);
  }
  if (t.last) {
    if (t.scale != 1.0f) {
#pragma GCC unroll 16
      for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) acc[r][v] *= t.scale;
    }
    if (t.bias) {
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) {
        vf bias = load(t.bias + v * VL);
#pragma GCC unroll 16
        for (int r = 0; r < MR; r++) acc[r][v] += bias;
      }
    }
    if (t.row_bias) {
#pragma GCC unroll 16
      for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) acc[r][v] += t.row_bias[r];
    }
    if (t.add) {
#pragma GCC unroll 16
      for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++)
          acc[r][v] += load((r < HALF ? t.add + r * t.add_row : t.add_second + (r - HALF) * t.add_row) +
                            v * t.add_vector);
    }
    vf low = splat(t.low), high = splat(t.high);
#pragma GCC unroll 16
    for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) acc[r][v] = vmin(high, vmax(low, acc[r][v]));
  }
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++)
      store((r < HALF ? t.c + r * t.c_row : t.c_second + (r - HALF) * t.c_row) + v * t.c_vector, acc[r][v]);
}

typedef void (*TileFunction)(const TileF32 &);

// Defined once, in tile_f32.cpp. rows in 1..TILE_ROWS, vectors 1 or 2; `row`: elements between
// rows of A (some distances have tiles of their own).
TileFunction tile_for(int rows, int vectors, int64_t row);
// The same for products of packed rows: it fetches `ahead`, and the results' lines.
TileFunction product_tile_for(int rows, int vectors);
// Tiles over two image rows of `pixels` each, 1..TILE_ROWS / 2.
TileFunction double_tile_for(int pixels, int vectors, int64_t row);

}  // namespace EPK_NS
