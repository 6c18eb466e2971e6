// Matrix products whose B is kept in 16 bits, with float32 results: out = activation(scale * A @ B + bias + add).
//
// In the bfloat16 forms both factors are rounded to bfloat16 (to the nearest, halves to even): an opt-in that keeps
// about three digits. In EPK_F16, B's numbers are float16, and nothing is rounded.
#pragma once
#include "epilogue.h"
#include "simd.h"

#ifndef EPK_GEMM16
#define EPK_GEMM16
enum EpkForm16 {
  EPK_BF16_DOT,   // bfloat16 dot products, for CPUs where they are faster than float32 multiply-adds
  EPK_BF16_WIDE,  // B is widened panel by panel; multiply-adds of float32
  EPK_BF16_HALF,  // products of float16 (see tile_half.h); where the numbers' range forbids it, as EPK_BF16_WIDE
  EPK_F16
};

// A is [m, k], B is [k, n], out is [m, n]. Rows lie in blocks of 16 numbers: column c of row r of A is at
// r * a_row + c / 16 * a_block + c % 16, so a matrix has a_block = 16, and a blocked image's pixels are rows of 16.
struct EpkGemm16 {
  int64_t m, n, k;
  const float *a;
  int64_t a_row, a_block;
  const void *packed;   // as gemm16_pack wrote it
  float *out;
  int64_t out_row, out_block;
  EpkEpilogue epilogue;  // `add` has the layout of the output, add_row is not read unless out_block is 16
};
#endif

extern "C" {
// Bytes of B packed, and the packing; B is of float32 numbers.
int64_t EPK(gemm16_packed_size)(int64_t k, int64_t n);
void EPK(gemm16_pack)(const float *b, int64_t k, int64_t n, int64_t b_row, int64_t b_column, int form, void *packed,
                      Parallel *p);
// Bytes of scratch (64-byte aligned) for these sizes and threads.
int64_t EPK(gemm16_scratch)(const EpkGemm16 *g, int threads);
void EPK(gemm16)(const EpkGemm16 *g, void *scratch, Parallel *p);
}
