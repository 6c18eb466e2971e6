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

EPK_INLINE vi load_ints(const int32_t *p, int64_t n) { return bits(load_n((const float *)p, n)); }

// Rounded, with the result's zero point, in its range. Clipped first: what does not fit int32 is far outside in any case.
EPK_INLINE vi codes_of(const EpkRequantise &f, vf value) {
  value = vmin(splat(65536.0f), vmax(splat(-65536.0f), vround(value))) + (float)f.zero;
  return to_int(vmin(splat((float)f.high), vmax(splat((float)f.low), value)));
}

// n columns from sums (already corrected) to `out`, which points to the first of them.
inline void requantise_row(const EpkRequantise &f, const int32_t *sums, int64_t column, int64_t n, void *out) {
  const vf one = splat(f.multiplier ? f.multiplier[0] : 1.0f);
  for (int64_t i = 0; i < n; i += VL) {
    const int64_t at = column + i, lanes = min_of<int64_t>(VL, n - i);
    vi sum = load_as<vi>(sums + i);
    if (f.bias) sum += load_ints(f.bias + at, lanes);
    if (f.result == EPK_INT32) {
      store_n((float *)out + i, from_bits(sum), lanes);
      continue;
    }
    vf value = to_float(sum) * (f.per_column ? load_n(f.multiplier + at, lanes) : one);
    if (f.offset) value += load_n(f.offset + at, lanes);
    if (f.result == EPK_FLOAT32) {
      store_n((float *)out + i, value, lanes);
      continue;
    }
    const vi whole = codes_of(f, value);
    if (lanes == VL) {
      store_bytes((uint8_t *)out + i, whole);
    } else {
      uint8_t bytes[VL];
      store_bytes(bytes, whole);
      memcpy((uint8_t *)out + i, bytes, (size_t)lanes);
    }
  }
}

inline int64_t result_size(int32_t result) { return result == EPK_INT32 || result == EPK_FLOAT32 ? 4 : 1; }

}  // namespace EPK_NS
