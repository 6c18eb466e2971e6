#include "softmax.h"

#include "softmax_row.h"

namespace EPK_NS {
namespace {

void softmax_of_row(const float *x, float *out, int64_t n, bool logarithm) {
  const float top = row_max(x, n);
  if (!logarithm) {
    row_scale(out, 1.0f / row_exp(x, 1.0f, top, out, n), out, n);
    return;
  }
  vf total{};
  float sum = 0;
  int64_t i = 0;
  for (; i + VL <= n; i += VL) total += vexp_or_zero(load(x + i) - top);
  if (i < n) {
    const vf e = vexp_or_zero(load_n(x + i, n - i) - top);
    for (int64_t j = 0; i + j < n; j++) sum += e[j];
  }
  const float shift = logf(sum + sum_of(total));
  for (i = 0; i < n; i += VL) {
    const int64_t lanes = min_of<int64_t>(VL, n - i);
    store_n(out + i, (load_n(x + i, lanes) - top) - shift, lanes);
  }
}

// `lanes` neighbouring columns of [n, inner] at once.
void softmax_of_columns(const float *x, float *out, int64_t n, int64_t inner, int64_t lanes, bool logarithm) {
  vf top = splat(-__builtin_inff()), total{};
  for (int64_t i = 0; i < n; i++) top = vmax(top, load_n(x + i * inner, lanes));
  for (int64_t i = 0; i < n; i++) {
    const vf shifted = load_n(x + i * inner, lanes) - top, e = vexp_or_zero(shifted);
    total += e;
    store_n(out + i * inner, logarithm ? shifted : e, lanes);
  }
  const vf factor = 1.0f / total, shift = vlog(total);
  for (int64_t i = 0; i < n; i++) {
    const vf value = load_n(out + i * inner, lanes);
    store_n(out + i * inner, logarithm ? value - shift : value * factor, lanes);
  }
}

}  // namespace
}  // namespace EPK_NS

using namespace EPK_NS;

extern "C" void EPK(softmax_f32)(const float *x, float *out, int64_t outer, int64_t n, int64_t inner, int logarithm,
                                 Parallel *p) {
  if (n <= 0) return;
  const int64_t columns = ceil_div(inner, VL), grain = max_of<int64_t>(1, 16384 / (n * (inner == 1 ? 1 : VL)));
  parallel_for(p, inner == 1 ? outer : outer * columns, grain, [=](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      if (inner == 1) {
        softmax_of_row(x + i * n, out + i * n, n, logarithm);
        continue;
      }
      const int64_t column = i % columns * VL, place = i / columns * n * inner + column;
      softmax_of_columns(x + place, out + place, n, inner, min_of<int64_t>(VL, inner - column), logarithm);
    }
  });
}
