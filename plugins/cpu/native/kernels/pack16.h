// Packed rows and panels of 16-bit products.
#pragma once
#include "activate.h"
#include "gemm16.h"
#include "narrow.h"
#include "tile_half.h"
#include "tile_raw.h"

namespace EPK_NS {

// What a packed B begins with.
struct Header16 {
  int32_t form;  // EpkForm16; EPK_BF16_HALF only where every column fits
  int32_t unused[15];
};

// A panel: the exponents of its columns (EPK_BF16_HALF: the number is the half times 2^exponent), then k rounded up to
// BLOCK steps of WIDE_PANEL numbers; in EPK_BF16_DOT those of two steps side by side.
struct Panel16 {
  float exponent[WIDE_PANEL];
  uint16_t *steps() { return (uint16_t *)(this + 1); }
  const uint16_t *steps() const { return (const uint16_t *)(this + 1); }
  static int64_t bytes(int64_t k) { return (int64_t)sizeof(Panel16) + round_up(k, BLOCK) * WIDE_PANEL * 2; }
};

// Largest halves are below 2^5 in A and 2^4 in B: a sum of 32 products stays below 2^14.
constexpr int TOP_A = 4, TOP_B = 3;
// A bfloat16 number of at least this size is exact in float16.
constexpr float EXACT = 0x1p-17f;
// One inexact number (2^21 times smaller than the largest) in so many is let pass.
constexpr int64_t FEW = 16;

EPK_INLINE float power_of_two(int exponent) {
  const int32_t b = (exponent + 127) << 23;
  float x;
  memcpy(&x, &b, 4);
  return x;
}

EPK_INLINE uint16_t bf16_of(float x) {
  uint32_t b;
  memcpy(&b, &x, 4);
  const uint32_t rounded = (b + 0x7fff + ((b >> 16) & 1)) >> 16;
  return (uint16_t)(x != x ? (b >> 16) | 0x40 : rounded);
}

// The exponent of the largest of numbers whose largest magnitude has these bits; false: one of them is not finite.
EPK_INLINE bool exponent_of_bits(int32_t most, int &exponent) {
  exponent = max_of(((most + 0x8000) >> 23) - 127, LEAST_EXPONENT);  // as rounded
  return most < 0x7f7f8000;
}

#if EPK_HALF_TILES
// Lanes as bfloat16, times a factor that makes them halves, each half twice. x is finite; `inexact` counts in each lane.
EPK_INLINE vi twice_half(vf x, float factor, vi &inexact) {
  const vi b = bits(x);
  const vf y = from_bits((b + 0x7fff + ((b >> 16) & 1)) & (int32_t)0xffff0000u) * factor;
  const vi behind_zero = (bits(y) & 0x7fffffff) - 1;  // 0 becomes the largest unsigned number
  const __mmask16 small = _mm512_cmplt_epu32_mask((__m512i)behind_zero, _mm512_castps_si512(_mm512_set1_ps(EXACT)));
  inexact = (vi)_mm512_mask_sub_epi32((__m512i)inexact, small, (__m512i)inexact, _mm512_set1_epi32(-1));
  const vi h = (vi)_mm512_cvtepu16_epi32(_mm512_cvtps_ph((__m512)y, _MM_FROUND_TO_NEAREST_INT));
  return h | (h << 16);
}

EPK_INLINE int64_t total(vi x) { return _mm512_reduce_add_epi32((__m512i)x); }
EPK_INLINE int32_t largest(vi x) { return _mm512_reduce_max_epi32((__m512i)x); }
#endif

// The end of a product: what happens to rows of sums.
struct Finish16 {
  EpkEpilogue e;            // bias, row_bias and add are those of the whole product
  int64_t block;            // distance of 16 columns from the next 16 in the output; BLOCK: rows are dense
  bool first, last;         // block of the reduction
  const float *exponent;    // of the panel's columns, where sums are of halves; else null

  // Columns [column, column + width) of a row, to `to`; add and row_bias: those of its first number.
  void row(const float *sums, float power, int64_t column, int64_t width, float *to, const float *add,
           float row_bias) const {
    const float *bias = e.bias ? e.bias + column : nullptr;
    float low, high;
    clip_bounds(e, low, high);
    for (int64_t j = 0; j < width; j += VL) {
      const int64_t n = min_of<int64_t>(VL, width - j), place = block == BLOCK ? j : j / BLOCK * block + j % BLOCK;
      vf x = load(sums + j);
      if (exponent) x = scale_by(x, load(exponent + j) + power);
      if (!first) x += load_n(to + place, n);
      if (last) {
        x = x * e.scale + row_bias;
        if (bias) x += load_n(bias + j, n);
        if (add) x += load_n(add + place, n);
        x = is_cheap(e.activation) ? vmin(splat(high), vmax(splat(low), x)) : activate(x, e);
      }
      store_n(to + place, x, n);
    }
  }
};

}  // namespace EPK_NS
