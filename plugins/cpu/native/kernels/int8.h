// Products and convolutions of 8-bit integers, exact in int32, and quantisation, as ONNX says: halves to even.
#pragma once
#include "conv.h"
#include "simd.h"

#ifndef EPK_INT8_H
#define EPK_INT8_H
enum EpkResult { EPK_INT32, EPK_FLOAT32, EPK_UINT8, EPK_INT8 };

// What becomes of sum = (A - a_zero) @ (B - b_zero) + bias, in int32:
//   EPK_INT32: it is the result. EPK_FLOAT32: sum * multiplier[column] + offset[column]. 8 bits: that, rounded to the
//   nearest, plus zero, clipped to [low, high].
struct EpkRequantise {
  int32_t result;           // EpkResult
  const int32_t *bias;      // one per column, or null
  const float *multiplier;  // input scale * weight scale (/ output scale)
  int32_t per_column;       // multiplier has one per column, else one
  int32_t zero, low, high;
  const float *offset;      // one per column, or null
};

struct EpkGemmInt8 {
  int64_t m, n, k;
  const void *a;            // [m, k] bytes
  int64_t a_row;
  int32_t a_signed, a_zero;
  const void *packed;       // by gemm_pack_int8
  void *out;                // [m, n]
  int64_t out_row;          // in elements
  int64_t batch;
  const int64_t *a_offset, *out_offset;  // elements; null: 0 for all
  EpkRequantise finish;
};

struct EpkConvInt8 {
  EpkConv shape;            // epilogue and transposed are not used; blocked is [n][channel / 16][pixels][16] of any type
  int32_t x_signed, x_zero;
  EpkRequantise finish;     // of columns, which are filters
};
#endif

extern "C" {
// B [k, n] by strides; b_zero: one, or one per column (zeros = n), or null.
int64_t EPK(gemm_packed_size_int8)(int64_t k, int64_t n);
void EPK(gemm_pack_int8)(const void *b, int64_t k, int64_t n, int64_t b_row, int64_t b_column, int b_signed,
                         const void *b_zero, int64_t zeros, void *packed, Parallel *p);
int64_t EPK(gemm_scratch_int8)(const EpkGemmInt8 *g, int threads);
void EPK(gemm_int8)(const EpkGemmInt8 *g, void *scratch, Parallel *p);

int64_t EPK(conv_packed_size_int8)(const EpkConvInt8 *c);
void EPK(conv_pack_int8)(const EpkConvInt8 *c, const void *weights, int w_signed, const void *w_zero, int64_t zeros,
                         void *packed, Parallel *p);
// Bytes of scratch; -1 where the padded image is larger than any memory.
int64_t EPK(conv_scratch_int8)(const EpkConvInt8 *c, int threads);
void EPK(conv_int8)(const EpkConvInt8 *c, const void *x, const void *packed, void *out, void *scratch, Parallel *p);

// [outer, axis, inner] with one scale and zero point per index of the axis (axis 1: one for all). zero may be null.
void EPK(quantise)(const float *x, const float *scale, const void *zero, void *out, int is_signed, int64_t outer,
                   int64_t axis, int64_t inner, Parallel *p);
void EPK(dequantise)(const void *x, const float *scale, const void *zero, float *out, int is_signed, int64_t outer,
                     int64_t axis, int64_t inner, Parallel *p);
}
