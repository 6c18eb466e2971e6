// The register tile that every product is made of: MR rows by NV vectors of accumulators, kept in registers over
// the whole reduction. Rows are rows of a matrix or pixels of an image; the reduction runs over `blocks` pieces of
// `steps` elements each, so that one kernel serves packed matrices (one piece), channels-blocked images (a piece
// per kernel tap and channel block) and planar images (a piece per kernel row).
#pragma once
#include "simd.h"

namespace EPK_NS {

constexpr int TILE_ROWS = VL == 16 ? 14 : 6;  // rows of accumulators that fit the register file with NV == 2
constexpr int PANEL = 2 * VL;                 // columns of a packed panel
constexpr int PREFETCH = 8;                   // steps of a panel fetched ahead
constexpr int BLOCK = 16;                     // channels in a block; the same for every instruction set

// float32 products.
struct MulF32 {
  typedef float lane;
  typedef vf vector;
  static EPK_INLINE vf multiply_add(vf c, vf a, vf b) { return fma_of(a, b, c); }
};

template <class Op> struct Reduction {
  typedef typename Op::lane lane;
  const lane *a;           // first row
  const lane *a_second;    // first row of the second half of the rows, for tiles over two image rows
  int64_t a_row;           // lanes between rows
  const int32_t *offsets;  // lanes from a to each piece; null: piece i at i * a_block
  int64_t a_block;
  int64_t blocks, steps;
  const lane *b;   // NV vectors a step
  int64_t b_step;  // lanes between steps
};

// Accumulators of a tile, reduced. ROW is the lanes between rows where known at compile time, else 0.
template <class Op, int MR, int NV, int ROW, bool TWO>
EPK_INLINE void reduce(const Reduction<Op> &t, typename Op::vector (&acc)[MR][NV]) {
  typedef typename Op::vector vector;
  typedef typename Op::lane lane;
  constexpr int HALF = TWO ? MR / 2 : MR;
  const int64_t row = ROW ? ROW : t.a_row;
  const lane *b = t.b;
  for (int64_t block = 0; block < t.blocks; block++) {
    const int64_t offset = t.offsets ? t.offsets[block] : block * t.a_block;
    const lane *a = t.a + offset;
    const lane *second = TWO ? t.a_second + offset : a;
    for (int64_t k = 0; k < t.steps; k++) {
      vector column[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) column[v] = load_as<vector>(b + v * VL);
#pragma GCC unroll 16
      for (int r = 0; r < MR; r++) {
        const lane *base = r < HALF ? a : second;
        vector value = base[(r < HALF ? r : r - HALF) * row + k] - vector{};
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) acc[r][v] = Op::multiply_add(acc[r][v], value, column[v]);
      }
      // Panels come from L2 and beyond: fetch ahead of the hardware, which stops at each page.
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) __builtin_prefetch(b + PREFETCH * t.b_step + v * VL);
      b += t.b_step;
    }
  }
}

}  // namespace EPK_NS
