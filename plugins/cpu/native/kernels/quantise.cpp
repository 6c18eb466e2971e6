#include "int8.h"

namespace EPK_NS {
namespace {

void quantise_row(const float *x, float scale, int32_t zero, uint8_t *out, int64_t n, bool is_signed) {
  const float low = is_signed ? -128.0f : 0.0f, high = is_signed ? 127.0f : 255.0f;
  int64_t i = 0;
  for (; i < n; i += VL) {
    const int64_t lanes = min_of<int64_t>(VL, n - i);
    vf value = vround(load_n(x + i, lanes) / scale) + (float)zero;
    value = vmin(splat(high), vmax(value, splat(low)));  // NaN becomes the least
    if (lanes == VL) {
      store_bytes(out + i, to_int(value));
      continue;
    }
    uint8_t bytes[VL];
    store_bytes(bytes, to_int(value));
    memcpy(out + i, bytes, (size_t)lanes);
  }
}

}  // namespace
}  // namespace EPK_NS

using namespace EPK_NS;

static inline int32_t zero_at(const void *zero, int64_t i, int is_signed) {
  if (!zero) return 0;
  return is_signed ? ((const int8_t *)zero)[i] : ((const uint8_t *)zero)[i];
}

extern "C" void EPK(quantise)(const float *x, const float *scale, const void *zero, void *out, int is_signed,
                              int64_t outer, int64_t axis, int64_t inner, Parallel *p) {
  const int64_t piece = 8192, pieces = ceil_div(inner, piece);
  parallel_for(p, outer * axis * pieces, max_of<int64_t>(1, piece / max_of<int64_t>(inner, 1)), [=](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t row = i / pieces, first = i % pieces * piece, n = min_of(piece, inner - first);
      const int64_t place = row * inner + first, index = row % axis;
      quantise_row(x + place, scale[index], zero_at(zero, index, is_signed), (uint8_t *)out + place, n, is_signed);
    }
  });
}

extern "C" void EPK(dequantise)(const void *x, const float *scale, const void *zero, float *out, int is_signed,
                                int64_t outer, int64_t axis, int64_t inner, Parallel *p) {
  const int64_t piece = 8192, pieces = ceil_div(inner, piece);
  parallel_for(p, outer * axis * pieces, max_of<int64_t>(1, piece / max_of<int64_t>(inner, 1)), [=](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t row = i / pieces, first = i % pieces * piece, n = min_of(piece, inner - first);
      const int64_t place = row * inner + first, index = row % axis;
      const int32_t z = zero_at(zero, index, is_signed);
      const float s = scale[index];
      float *to = out + place;
      if (is_signed) {
        const int8_t *from = (const int8_t *)x + place;
        for (int64_t j = 0; j < n; j++) to[j] = (float)(from[j] - z) * s;
      } else {
        const uint8_t *from = (const uint8_t *)x + place;
        for (int64_t j = 0; j < n; j++) to[j] = (float)(from[j] - z) * s;
      }
    }
  });
}
