// Softmax over the middle axis of [outer, n, inner], float32. Source and destination may be the same.
#pragma once
#include "simd.h"

extern "C" {
void EPK(softmax_f32)(const float *x, float *out, int64_t outer, int64_t n, int64_t inner, int logarithm, Parallel *p);
}
