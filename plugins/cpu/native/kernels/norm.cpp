#include "norm.h"

#include <cmath>

#include "tile.h"

namespace EPK_NS {
namespace {

float row_sum(const float *x, int64_t n) {
  vf total[4] = {};
  int64_t i = 0;
  for (; i + 4 * VL <= n; i += 4 * VL)
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) total[j] += load(x + i + j * VL);
  for (; i < n; i += VL) total[0] += load_n(x + i, min_of<int64_t>(VL, n - i));
  return sum_of((total[0] + total[1]) + (total[2] + total[3]));
}

// The sum of (x - mean)^2.
float row_square_sum(const float *x, float mean, int64_t n) {
  vf total[4] = {};
  int64_t i = 0;
  for (; i + 4 * VL <= n; i += 4 * VL)
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      const vf d = load(x + i + j * VL) - mean;
      total[j] = fma_of(d, d, total[j]);
    }
  float sum = 0;
  for (; i + VL <= n; i += VL) {
    const vf d = load(x + i) - mean;
    total[0] = fma_of(d, d, total[0]);
  }
  for (; i < n; i++) sum += (x[i] - mean) * (x[i] - mean);
  return sum + sum_of((total[0] + total[1]) + (total[2] + total[3]));
}

}  // namespace
}  // namespace EPK_NS

using namespace EPK_NS;

extern "C" void EPK(layer_norm_f32)(const float *x, const float *skip, const float *skip_bias, const float *scale,
                                    const float *bias, float *out, float *sum, float *mean, float *inverse,
                                    int64_t rows, int64_t n, float epsilon, int rms, Parallel *p) {
  parallel_for(p, rows, max_of<int64_t>(1, 16384 / max_of<int64_t>(n, 1)), [=](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; r++) {
      const float *from = x + r * n;
      float *to = out + r * n;
      if (skip || skip_bias) {
        float *y = sum ? sum + r * n : to;
        for (int64_t i = 0; i < n; i += VL) {
          const int64_t lanes = min_of<int64_t>(VL, n - i);
          vf value = load_n(from + i, lanes);
          if (skip) value += load_n(skip + r * n + i, lanes);
          if (skip_bias) value += load_n(skip_bias + i, lanes);
          store_n(y + i, value, lanes);
        }
        from = y;
      }
      const float center = rms ? 0.0f : row_sum(from, n) / (float)n;
      const float factor = 1.0f / sqrtf(row_square_sum(from, center, n) / (float)n + epsilon);
      if (mean) mean[r] = center;
      if (inverse) inverse[r] = factor;
      for (int64_t i = 0; i < n; i += VL) {
        const int64_t lanes = min_of<int64_t>(VL, n - i);
        vf value = (load_n(from + i, lanes) - center) * factor;
        if (scale) value *= load_n(scale + i, lanes);
        if (bias) value += load_n(bias + i, lanes);
        store_n(to + i, value, lanes);
      }
    }
  });
}

extern "C" void EPK(group_norm_f32)(const float *x, const float *scale, const float *bias, float *out, int64_t n,
                                    int64_t c, int64_t pixels, int64_t groups, float epsilon, Parallel *p) {
  const int64_t channels = c / groups, size = channels * pixels;
  parallel_for(p, n * groups, max_of<int64_t>(1, 16384 / max_of<int64_t>(size, 1)), [=](int64_t begin, int64_t end, int) {
    for (int64_t g = begin; g < end; g++) {
      const float center = row_sum(x + g * size, size) / (float)size;
      const float inverse = 1.0f / sqrtf(row_square_sum(x + g * size, center, size) / (float)size + epsilon);
      for (int64_t j = 0; j < channels; j++) {
        const int64_t channel = g % groups * channels + j, place = g * size + j * pixels;
        const float factor = inverse * (scale ? scale[channel] : 1.0f), term = bias ? bias[channel] : 0.0f;
        for (int64_t i = 0; i < pixels; i += VL) {
          const int64_t lanes = min_of<int64_t>(VL, pixels - i);
          store_n(out + place + i, (load_n(x + place + i, lanes) - center) * factor + term, lanes);
        }
      }
    }
  });
}

extern "C" void EPK(channel_affine_f32)(const float *x, const float *factor, const float *term, float *out, int64_t n,
                                        int64_t c, int64_t pixels, int blocked, Parallel *p) {
  const int64_t planes = blocked ? ceil_div(c, BLOCK) : c;
  parallel_for(p, n * planes, max_of<int64_t>(1, 16384 / max_of<int64_t>(pixels, 1)), [=](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t plane = i % planes;
      if (!blocked) {
        const vf a = splat(factor[plane]), b = splat(term[plane]);
        for (int64_t j = 0; j < pixels; j += VL) {
          const int64_t lanes = min_of<int64_t>(VL, pixels - j);
          store_n(out + i * pixels + j, fma_of(load_n(x + i * pixels + j, lanes), a, b), lanes);
        }
        continue;
      }
      for (int lane = 0; lane < BLOCK; lane += VL) {
        const int64_t channel = plane * BLOCK + lane, real = min_of<int64_t>(VL, c - channel);
        const vf a = real > 0 ? load_n(factor + channel, real) : vf{}, b = real > 0 ? load_n(term + channel, real) : vf{};
        for (int64_t j = 0; j < pixels; j++) {
          const int64_t place = (i * pixels + j) * BLOCK + lane;
          store(out + place, fma_of(load(x + place), a, b));
        }
      }
    }
  });
}
