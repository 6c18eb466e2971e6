// Pieces of softmax over a contiguous row, shared with attention.
#pragma once
#include "vmath.h"

namespace EPK_NS {

// The largest element; NaN if there is one.
inline float row_max(const float *x, int64_t n) {
  vf best = splat(-__builtin_inff());
  int64_t i = 0;
  for (; i + VL <= n; i += VL) best = vmax(best, load(x + i));
  if (i < n) {
    vf tail = splat(-__builtin_inff());
    for (int64_t j = 0; i + j < n; j++) tail[j] = x[i + j];
    best = vmax(best, tail);
  }
  float found = best[0];
  for (int j = 1; j < VL; j++) found = found > best[j] ? found : best[j];
  return found;
}

// out[i] = e^(scale * x[i] - shift); returns their sum.
inline float row_exp(const float *x, float scale, float shift, float *out, int64_t n) {
  vf total{};
  int64_t i = 0;
  for (; i + VL <= n; i += VL) {
    const vf e = vexp_or_zero(load(x + i) * scale - shift);
    total += e;
    store(out + i, e);
  }
  float sum = sum_of(total);
  if (i < n) {
    const vf e = vexp_or_zero(load_n(x + i, n - i) * scale - shift);
    for (int64_t j = 0; i + j < n; j++) sum += e[j];
    store_n(out + i, e, n - i);
  }
  return sum;
}

inline void row_scale(const float *x, float factor, float *out, int64_t n) {
  int64_t i = 0;
  for (; i + VL <= n; i += VL) store(out + i, load(x + i) * factor);
  if (i < n) store_n(out + i, load_n(x + i, n - i) * factor, n - i);
}

}  // namespace EPK_NS
