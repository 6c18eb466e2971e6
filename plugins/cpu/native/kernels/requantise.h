// Sums of 8-bit products corrected for zero points and brought to their result.
#pragma once
#include "int8.h"
#include "tile.h"

namespace EPK_NS {

// One to a panel of packed weights: what the columns' zero points need.
struct Columns {
  int32_t total[PANEL];  // of the column's bytes
  int32_t zero[PANEL];   // of the column, as a signed byte
};

// Corrected sums of one row: sums - a_zero * total - zero * (row_total - k * a_zero) + bias. row_total: of A's row.
EPK_INLINE vi correct(const int32_t *sums, const Columns &c, int lane, int32_t a_zero, int32_t row_total, int32_t k) {
  const vi total = load_as<vi>(c.total + lane), zero = load_as<vi>(c.zero + lane);
  return load_as<vi>(sums + lane) - total * a_zero - zero * (row_total - k * a_zero);
}

// n columns from sums (already corrected) to `out`, which points to the first of them.
inline void requantise_row(const EpkRequantise &f, int32_t *sums, int64_t column, int64_t n, void *out) {
  if (f.bias)
    for (int64_t i = 0; i < n; i++) sums[i] += f.bias[column + i];
  if (f.result == EPK_INT32) {
    memcpy(out, sums, (size_t)n * 4);
    return;
  }
  alignas(64) float values[PANEL];
  for (int64_t i = 0; i < n; i++) values[i] = (float)sums[i] * f.multiplier[f.per_column ? column + i : 0];
  if (f.result == EPK_FLOAT32) {
    memcpy(out, values, (size_t)n * 4);
    return;
  }
  alignas(64) int32_t rounded[PANEL];
  for (int64_t i = 0; i < n; i += VL) {
    // Clipped first: what does not fit int32 is far outside in any case.
    const vf value = vmin(splat(65536.0f), vmax(splat(-65536.0f), vround(load(values + i)))) + (float)f.zero;
    store_as(rounded + i, to_int(vmin(splat((float)f.high), vmax(splat((float)f.low), value))));
  }
  uint8_t *to = (uint8_t *)out;
#pragma GCC unroll 16
  for (int64_t i = 0; i < n; i++) to[i] = (uint8_t)rounded[i];
}

inline int64_t result_size(int32_t result) { return result == EPK_INT32 || result == EPK_FLOAT32 ? 4 : 1; }

}  // namespace EPK_NS
