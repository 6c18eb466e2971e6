// Normalisations of float32. Means and variances take two passes over data in cache, as the definitions have them.
#pragma once
#include "simd.h"

extern "C" {
// out = (y - mean) / sqrt(variance + epsilon) * scale + bias over rows of n, y = x + skip + skip_bias. `rms`: without
// the mean. skip, skip_bias [n], scale [n], bias [n], sum (receives y), mean and inverse [rows] may be null.
void EPK(layer_norm_f32)(const float *x, const float *skip, const float *skip_bias, const float *scale,
                         const float *bias, float *out, float *sum, float *mean, float *inverse, int64_t rows,
                         int64_t n, float epsilon, int rms, Parallel *p);
// Over groups of channels of [n, c, pixels]; groups == c is instance normalisation. scale and bias [c] or null.
void EPK(group_norm_f32)(const float *x, const float *scale, const float *bias, float *out, int64_t n, int64_t c,
                         int64_t pixels, int64_t groups, float epsilon, Parallel *p);
// out = x * factor[channel] + term[channel] over [n, c, pixels], planar or blocked: batch normalisation, folded.
void EPK(channel_affine_f32)(const float *x, const float *factor, const float *term, float *out, int64_t n, int64_t c,
                             int64_t pixels, int blocked, Parallel *p);
}
