#include "resize.h"

#include <cmath>

namespace EPK_NS {
namespace {

// The place of output i among the inputs.
double place_of(const EpkResizeAxis &a, int64_t i) {
  const double x = (double)i, wanted = (double)a.in * a.up / a.down;  // the new length before rounding
  const double half_pixel = (x + 0.5) * a.down / a.up - 0.5;
  switch (a.coordinates) {
    case EPK_HALF_PIXEL_SYMMETRIC:  // rounded as the bounds of a region are
      return (double)(float)(half_pixel + (double)a.in / 2 * (1 - (double)a.out / wanted));
    case EPK_PYTORCH_HALF_PIXEL: return a.out > 1 ? half_pixel : 0.0;
    case EPK_ALIGN_CORNERS: return wanted > 1 ? x * (double)(a.in - 1) / (wanted - 1) : 0.0;
    case EPK_ASYMMETRIC: return x * a.down / a.up;
    case EPK_CROP_AND_RESIZE: {
      const double last = (double)(a.in - 1), start = a.start, end = a.end;
      return a.out > 1 ? start * last + x * (end - start) * last / (double)(a.out - 1) : 0.5 * (start + end) * last;
    }
    default: return half_pixel;
  }
}

int64_t nearest(const EpkResizeAxis &a, double x) {
  switch (a.nearest) {
    case EPK_FLOOR: return (int64_t)floor(x);
    case EPK_CEIL: return (int64_t)ceil(x);
    case EPK_ROUND_PREFER_CEIL: return (int64_t)floor(x + 0.5);
    default: return (int64_t)ceil(x - 0.5);
  }
}

// The cubic weight at distance d.
double cubic(double a, double d) {
  d = fabs(d);
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0.0;
}

void taps_of(const EpkResizeAxis &a, double x, int32_t *index, float *weight) {
  if (a.mode == EPK_NEAREST) {
    index[0] = (int32_t)max_of<int64_t>(0, min_of(a.in - 1, nearest(a, x)));
    weight[0] = 1.0f;
    return;
  }
  const int taps = a.mode == EPK_LINEAR ? 2 : 4;
  const int64_t first = (int64_t)floor(x) - (taps / 2 - 1);
  double values[4], sum = 0;
  for (int t = 0; t < taps; t++) {
    const int64_t at = first + t;
    const double d = x - (double)at;
    values[t] = a.mode == EPK_LINEAR ? 1 - fabs(d) : cubic(a.cubic_a, d);
    if (a.exclude_outside && (at < 0 || at >= a.in)) values[t] = 0;
    sum += values[t];
    index[t] = (int32_t)max_of<int64_t>(0, min_of(a.in - 1, at));
  }
  for (int t = 0; t < taps; t++) weight[t] = (float)(a.exclude_outside ? values[t] / sum : values[t]);
}

// A line of neighbouring numbers; what lies outside reads the first.
template <int TAPS>
void line_of(const int32_t *__restrict index, const float *__restrict weight, const float *__restrict from,
             float *__restrict to, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    if (TAPS == 1) {
      to[i] = from[max_of(index[i], 0)];
      continue;
    }
    float sum = 0.0f;
    for (int t = 0; t < TAPS; t++) sum += weight[i * TAPS + t] * from[max_of(index[i * TAPS + t], 0)];
    to[i] = sum;
  }
}

typedef void (*Line)(const int32_t *, const float *, const float *, float *, int64_t);

}  // namespace
}  // namespace EPK_NS

using namespace EPK_NS;

extern "C" int64_t EPK(resize_taps)(int mode) { return mode == EPK_NEAREST ? 1 : mode == EPK_LINEAR ? 2 : 4; }

extern "C" void EPK(resize_table)(const EpkResizeAxis *axis, int32_t *index, float *weight) {
  const int64_t taps = EPK(resize_taps)(axis->mode);
  for (int64_t i = 0; i < axis->out; i++) {
    const double x = place_of(*axis, i);
    taps_of(*axis, x, index + i * taps, weight + i * taps);
    if (axis->coordinates == EPK_CROP_AND_RESIZE && (x < 0 || x > (double)(axis->in - 1)))
      for (int64_t t = 0; t < taps; t++) index[i * taps + t] = -1;
  }
}

extern "C" void EPK(resize_f32)(const EpkResizeAxis *axis, const int32_t *index, const float *weight, const float *x,
                                float *out, int64_t outer, int64_t inner, Parallel *p) {
  const int64_t in = axis->in, lines = axis->out, taps = EPK(resize_taps)(axis->mode);
  const float outside = axis->extrapolation;
  const int64_t grain = max_of<int64_t>(1, 8192 / (inner * (inner == 1 ? lines : 1)));
  if (inner == 1) {
    bool within = true;
    for (int64_t i = 0; i < lines; i++) within &= index[i * taps] >= 0;
    const Line line = taps == 1 ? line_of<1> : taps == 2 ? line_of<2> : line_of<4>;
    parallel_for(p, outer, grain, [=](int64_t begin, int64_t end, int) {
      for (int64_t o = begin; o < end; o++) {
        const float *from = x + o * in;
        float *to = out + o * lines;
        line(index, weight, from, to, lines);
        for (int64_t i = 0; !within && i < lines; i++)
          if (index[i * taps] < 0) to[i] = outside;
      }
    });
    return;
  }
  parallel_for(p, outer * lines, grain, [=](int64_t begin, int64_t end, int) {
    for (int64_t l = begin; l < end; l++) {
      const int64_t i = l % lines;
      const float *image = x + l / lines * in * inner;
      float *to = out + l * inner;
      if (index[i * taps] < 0) {
        for (int64_t j = 0; j < inner; j++) to[j] = outside;
        continue;
      }
      if (taps == 1) {
        memcpy(to, image + index[i] * inner, (size_t)inner * 4);
        continue;
      }
      for (int64_t j = 0; j < inner; j += VL) {
        const int64_t lanes = min_of<int64_t>(VL, inner - j);
        vf sum{};
        for (int64_t t = 0; t < taps; t++)
          sum = fma_of(load_n(image + index[i * taps + t] * inner + j, lanes), splat(weight[i * taps + t]), sum);
        store_n(to + j, sum, lanes);
      }
    }
  });
}
