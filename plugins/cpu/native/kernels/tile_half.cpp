#include "tile_half.h"

#if EPK_HALF_TILES
#pragma GCC push_options
#pragma GCC target("avx512fp16")

namespace EPK_NS {
namespace {

constexpr int RUN = 8;    // steps whose sum stays in float16 registers
constexpr int FLUSH = 2;  // blocks between additions to the float32 sums
static_assert(BLOCK == 2 * RUN, "a block of A is two runs");

// The sums of one run of steps, and of `more` others, to `kept`.
template <int MR, int NV, int ROW, bool TWO>
EPK_INLINE void run(const TileHalf &t, const int32_t *a, const int32_t *second, const uint16_t *b, Ahead &ahead,
                    uint16_t *kept, const uint16_t *one_more = nullptr, const uint16_t *two_more = nullptr) {
  __m512h sum[MR][NV];
  constexpr int HALF = TWO ? MR / 2 : MR;
  const int64_t row = ROW ? ROW : t.a_row;
  __m512h column[NV];
#pragma GCC unroll 4
  for (int v = 0; v < NV; v++) column[v] = _mm512_loadu_ph(b + v * HALF_LANES);
  fetch(ahead);
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++) {
    const __m512h value = (__m512h)_mm512_set1_epi32(r < HALF ? a[r * row] : second[(r - HALF) * row]);
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) sum[r][v] = _mm512_mul_ph(value, column[v]);
  }
#pragma GCC unroll 1
  for (int i = 1; i < RUN; i++) {
    b += WIDE_PANEL;
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) column[v] = _mm512_loadu_ph(b + v * HALF_LANES);
    fetch(ahead);
#pragma GCC unroll 16
    for (int r = 0; r < MR; r++) {
      const __m512h value = (__m512h)_mm512_set1_epi32(r < HALF ? a[r * row + i] : second[(r - HALF) * row + i]);
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) sum[r][v] = _mm512_fmadd_ph(value, column[v], sum[r][v]);
    }
  }
  asm("" ::: "memory");  // not before: there are no registers for what was kept
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
      const int place = (r * NV + v) * HALF_LANES;
      if (one_more) sum[r][v] = _mm512_add_ph(sum[r][v], _mm512_load_ph(one_more + place));
      if (two_more) sum[r][v] = _mm512_add_ph(sum[r][v], _mm512_load_ph(two_more + place));
      _mm512_store_ph(kept + place, sum[r][v]);
    }
}

// Widens 16 halves in memory: from a register it would take a shuffle too, and the compiler would take registers.
EPK_INLINE __m512 widened(const uint16_t *p) {
  __m512 x;
  asm("vcvtph2ps %1, %0" : "=v"(x) : "m"(*(const __m256i *)p));
  return x;
}

// Adds what was kept to the float32 sums.
template <int MR, int NV> EPK_INLINE void flush(const uint16_t *kept, float *sums, bool first) {
  for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
    for (int i = 0; i < NV * 2; i++) {
      __m512 x = widened(kept + r * NV * HALF_LANES + i * 16);
      float *to = sums + r * WIDE_PANEL + i * 16;
      if (!first) x = _mm512_add_ps(x, _mm512_load_ps(to));
      _mm512_store_ps(to, x);
    }
}

template <int MR, int NV, int ROW, bool TWO> void one(const TileHalf &t) {
  alignas(64) uint16_t kept[3][MR * NV * HALF_LANES];
  const uint16_t *b = t.b;
  Ahead ahead = t.ahead;
  if (!ahead.from) ahead = {(const char *)(b + PREFETCH * WIDE_PANEL), WIDE_PANEL * 2, (NV - 1) * HALF_LANES * 2};
  bool first = true;
  for (int64_t block = 0; block < t.blocks; block++, b += BLOCK * WIDE_PANEL) {
    const int64_t offset = t.offsets ? t.offsets[block] : block * t.a_block;
    const int32_t *a = t.a + offset, *second = TWO ? t.a_second + offset : a;
    run<MR, NV, ROW, TWO>(t, a, second, b, ahead, kept[0]);
    const uint16_t *rest = b + RUN * WIDE_PANEL;
    if (FLUSH == 2 && block % 2 == 0 && block + 1 < t.blocks) {
      run<MR, NV, ROW, TWO>(t, a + RUN, second + RUN, rest, ahead, kept[1], kept[0]);
      continue;
    }
    if (FLUSH == 2 && block % 2) run<MR, NV, ROW, TWO>(t, a + RUN, second + RUN, rest, ahead, kept[2], kept[0], kept[1]);
    else run<MR, NV, ROW, TWO>(t, a + RUN, second + RUN, rest, ahead, kept[2], kept[0]);
    flush<MR, NV>(kept[2], t.sums, first);
    first = false;
  }
}

template <int MR, int NV, bool TWO> void choose(const TileHalf &t) {
  if constexpr (MR > 0) {
    if (t.rows != MR) return choose<MR - (TWO ? 2 : 1), NV, TWO>(t);
    if (t.a_row == BLOCK) one<MR, NV, BLOCK, TWO>(t);
    else one<MR, NV, 0, TWO>(t);
  }
}

}  // namespace

void tile_half(const TileHalf &t) {
  if (t.two) return t.vectors == 1 ? choose<TILE_ROWS, 1, true>(t) : choose<TILE_ROWS, 2, true>(t);
  return t.vectors == 1 ? choose<TILE_ROWS, 1, false>(t) : choose<TILE_ROWS, 2, false>(t);
}

}  // namespace EPK_NS
#pragma GCC pop_options
#else

namespace EPK_NS {
void tile_half(const TileHalf &) {}  // never chosen
}  // namespace EPK_NS
#endif
