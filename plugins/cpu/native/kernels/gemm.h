// float32 matrix products: out = activation(scale * A @ B + bias + row_bias + add), batched, any strides of A and B.
#pragma once
#include "epilogue.h"
#include "simd.h"

// A is [m, k], B is [k, n], out is [m, n] with contiguous rows. Strides are in elements.
struct EpkGemm {
  int64_t m, n, k;
  const float *a;
  int64_t a_row, a_column;
  const float *b;          // the matrix, or null where `packed` is given
  int64_t b_row, b_column;
  const float *packed;     // B as gemm_pack_f32 wrote it; one for all of the batch
  float *out;
  int64_t out_row;
  int64_t batch;           // number of products; 1 for one
  const int64_t *a_offset, *b_offset, *out_offset;  // elements to each of them; null: 0 for all
  EpkEpilogue epilogue;    // `add` moves by out_offset as the output does
};

extern "C" {
// Bytes of B packed, and the packing. The layout is of this instruction set only.
int64_t EPK(gemm_packed_size_f32)(int64_t k, int64_t n);
void EPK(gemm_pack_f32)(const float *b, int64_t k, int64_t n, int64_t b_row, int64_t b_column, float *packed,
                        Parallel *p);
// Bytes of scratch (64-byte aligned) that gemm_f32 needs for these sizes and threads.
int64_t EPK(gemm_scratch_f32)(const EpkGemm *g, int threads);
void EPK(gemm_f32)(const EpkGemm *g, void *scratch, Parallel *p);
}
