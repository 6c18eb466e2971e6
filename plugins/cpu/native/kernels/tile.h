// The register tile that every product is made of: MR rows by NV vectors of accumulators, kept in registers over
// the whole reduction. Rows are rows of a matrix or pixels of an image; the reduction runs over `blocks` pieces of
// `steps` elements each, so that one kernel serves packed matrices (one piece), channels-blocked images (a piece
// per kernel tap and channel block) and planar images (a piece per kernel row).
#pragma once
#include "simd.h"

namespace EPK_NS {

constexpr int TILE_ROWS = VL == 16 ? 14 : 6;  // rows of accumulators that fit the register file with NV == 2
constexpr int PANEL = 2 * VL;                 // columns of a packed panel
constexpr int PREFETCH = 32;                  // steps of a panel fetched ahead: weights come from beyond L2 once
constexpr int BLOCK = 16;                     // channels in a block; the same for every instruction set

// float32 products.
struct MulF32 {
  typedef float lane;
  typedef vf vector;  // of lanes
  typedef vf sum;     // accumulators
  static EPK_INLINE vf multiply_add(vf c, vf a, vf b) { return fma_of(a, b, c); }
};

// Unsigned by signed bytes, four to a lane, into int32. Exact: nothing saturates.
struct MulInt8 {
  typedef int32_t lane;
  typedef vi vector;
  typedef vi sum;
  static EPK_INLINE vi multiply_add(vi c, vi a, vi b) {
#if defined(__AVX512VNNI__)
    return (vi)_mm512_dpbusd_epi32((__m512i)c, (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    const __m256i even = _mm256_set1_epi16(255), x = (__m256i)a, y = (__m256i)b;
    const __m256i low = _mm256_madd_epi16(_mm256_and_si256(x, even), _mm256_srai_epi16(_mm256_slli_epi16(y, 8), 8));
    const __m256i high = _mm256_madd_epi16(_mm256_srli_epi16(x, 8), _mm256_srai_epi16(y, 8));
    return c + (vi)_mm256_add_epi32(low, high);
#elif defined(__SSE2__)
    const __m128i even = _mm_set1_epi16(255), x = (__m128i)a, y = (__m128i)b;
    const __m128i low = _mm_madd_epi16(_mm_and_si128(x, even), _mm_srai_epi16(_mm_slli_epi16(y, 8), 8));
    const __m128i high = _mm_madd_epi16(_mm_srli_epi16(x, 8), _mm_srai_epi16(y, 8));
    return c + (vi)_mm_add_epi32(low, high);
#else
    for (int i = 0; i < 32; i += 8) c += ((a >> i) & 255) * ((b << (24 - i)) >> 24);
    return c;
#endif
  }
};

// bfloat16, two to a lane, into float32.
struct MulBf16 {
  typedef int32_t lane;
  typedef vi vector;
  typedef vf sum;
  static EPK_INLINE vf multiply_add(vf c, vi a, vi b) {
#if defined(__AVX512BF16__)
    return (vf)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
#else
    const int32_t high = (int32_t)0xffff0000u;
    c = fma_of(from_bits(a << 16), from_bits(b << 16), c);
    return fma_of(from_bits(a & high), from_bits(b & high), c);
#endif
  }
};

// Memory that is fetched into L2 while a tile is computed: two lines a step, `second` bytes apart.
struct Ahead {
  const char *from;
  int64_t step, second;  // bytes
};

// Tile `tile` of `tiles` that read one panel fetches its part of the panel that comes next, so that the first of them
// does not wait for memory where the others find theirs in L2.
EPK_INLINE Ahead part_of_next(const void *next, int64_t bytes, int64_t steps, int64_t tile, int64_t tiles) {
  const int64_t part = ceil_div(bytes, tiles), half = ceil_div(part, 2);
  return {(const char *)next + tile * part, ceil_div(half, max_of<int64_t>(steps, 1)), half};
}

EPK_INLINE void fetch(Ahead &ahead) {
  __builtin_prefetch(ahead.from, 0, 2);
  __builtin_prefetch(ahead.from + ahead.second, 0, 2);
  ahead.from += ahead.step;
}

template <class Op> struct Reduction {
  typedef typename Op::lane lane;
  const lane *a;           // first row
  const lane *a_second;    // first row of the second half of the rows, for tiles over two image rows
  int64_t a_row;           // lanes between rows
  const int64_t *offsets;  // lanes from a to each piece; null: piece i at i * a_block
  int64_t a_block;
  int64_t blocks, steps;
  const lane *b;   // NV vectors a step
  int64_t b_step;  // lanes between steps
  Ahead ahead;     // where tiles fetch the next panel: what; nothing: this panel, PREFETCH steps ahead
};

// One step of the reduction: element k of every row by one row of columns.
template <class Op, int MR, int NV, bool TWO, bool AHEAD>
EPK_INLINE void step(const typename Op::lane *a, const typename Op::lane *second, int64_t row,
                     const typename Op::lane *b, int64_t b_step, typename Op::sum (&acc)[MR][NV]) {
  typedef typename Op::vector vector;
  constexpr int HALF = TWO ? MR / 2 : MR;
  vector column[NV];
#pragma GCC unroll 4
  for (int v = 0; v < NV; v++) column[v] = load_as<vector>(b + v * VL);
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++) {
    vector value = (r < HALF ? a[r * row] : second[(r - HALF) * row]) - vector{};
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) acc[r][v] = Op::multiply_add(acc[r][v], value, column[v]);
  }
  if constexpr (AHEAD) return;
  // Panels come from L2 and beyond: fetch ahead of the hardware, which stops at each page.
#pragma GCC unroll 4
  for (int v = 0; v < NV; v++) __builtin_prefetch(b + PREFETCH * b_step + v * VL);
}

// Accumulators of a tile, reduced. ROW is the lanes between rows where known at compile time, else 0. AHEAD: the next
// panel is fetched, which pays where reductions are long and weights come from memory. (There a step gets no distance
// that it does not use: GCC keeps it all the same, and spills the rows' address; a tenth of BERT's time.)
template <class Op, int MR, int NV, int ROW, bool TWO, bool AHEAD>
EPK_INLINE void reduce(const Reduction<Op> &t, typename Op::sum (&acc)[MR][NV]) {
  typedef typename Op::lane lane;
  // Few accumulators would wait for each other: odd steps get their own.
  constexpr bool SPLIT = MR * NV < 8;
  const int64_t row = ROW ? ROW : t.a_row;
  const lane *b = t.b;
  Ahead ahead = t.ahead;
  if (AHEAD && !ahead.from) ahead = {(const char *)(b + PREFETCH * t.b_step), t.b_step * (int64_t)sizeof(lane), (NV - 1) * VL * 4};
  typename Op::sum odd[MR][NV];
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) odd[r][v] = typename Op::sum{};
  for (int64_t block = 0; block < t.blocks; block++) {
    const int64_t offset = t.offsets ? t.offsets[block] : block * t.a_block;
    const lane *a = t.a + offset;
    const lane *second = TWO ? t.a_second + offset : a;
    int64_t k = 0;
    for (; SPLIT && k + 2 <= t.steps; k += 2, b += 2 * t.b_step) {
      step<Op, MR, NV, TWO, AHEAD>(a + k, second + k, row, b, AHEAD ? 0 : t.b_step, acc);
      if constexpr (AHEAD) fetch(ahead);
      step<Op, MR, NV, TWO, AHEAD>(a + k + 1, second + k + 1, row, b + t.b_step, AHEAD ? 0 : t.b_step, odd);
      if constexpr (AHEAD) fetch(ahead);
    }
    for (; k < t.steps; k++, b += t.b_step) {
      step<Op, MR, NV, TWO, AHEAD>(a + k, second + k, row, b, AHEAD ? 0 : t.b_step, acc);
      if constexpr (AHEAD) fetch(ahead);
    }
  }
  if (!SPLIT) return;
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) acc[r][v] += odd[r][v];
}

}  // namespace EPK_NS
