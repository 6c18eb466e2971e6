// Pooling of float32 over 1 to 3 spatial dimensions, planar or blocked (see conv.h) on both sides.
#pragma once
#include "simd.h"

#ifndef EPK_POOL
#define EPK_POOL
struct EpkPool {
  int64_t n, channels;
  int64_t in[3], out[3];          // depth, height, width; 1 where absent
  int64_t kernel[3], stride[3], dilation[3];
  int64_t pad[3], pad_end[3];
  int32_t average;                // else the maximum
  int32_t count_padding;          // divide by the taps inside the padded image, not only inside the image
  int32_t blocked;
};
#endif

extern "C" {
void EPK(pool_f32)(const EpkPool *pool, const float *x, float *out, Parallel *p);
// One value for a channel of [n, c, pixels]; out is [n, c] planar, or [n, c / 16, 16].
void EPK(global_pool_f32)(const float *x, float *out, int64_t n, int64_t c, int64_t pixels, int average, int blocked,
                          Parallel *p);
}
