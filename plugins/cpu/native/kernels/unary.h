// Elementary functions over contiguous float32 arrays. Source and destination may be the same.
#pragma once
#include "simd.h"

extern "C" {
// out[i] = f(x[i]) for the function of that number (see EpkUnary).
void EPK(unary_f32)(int function, const float *x, float *out, int64_t n, Parallel *p);
// out[i] = x[i] ^ y[i]
void EPK(pow_f32)(const float *x, const float *y, float *out, int64_t n, Parallel *p);
}

#ifndef EPK_UNARY
#define EPK_UNARY
enum EpkUnary {
  EPK_EXP, EPK_LOG, EPK_TANH, EPK_SIGMOID, EPK_ERF, EPK_SIN, EPK_COS, EPK_GELU, EPK_GELU_TANH, EPK_SILU
};
#endif
