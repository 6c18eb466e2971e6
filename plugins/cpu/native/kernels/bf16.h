// Products with both factors rounded to bfloat16 (to the nearest, halves to even) and float32 sums. An opt-in: about
// three significant digits.
#pragma once
#include "gemm.h"

extern "C" {
int64_t EPK(gemm_packed_size_bf16)(int64_t k, int64_t n);
void EPK(gemm_pack_bf16)(const float *b, int64_t k, int64_t n, int64_t b_row, int64_t b_column, void *packed,
                         Parallel *p);
// As gemm_f32; `packed` is B as gemm_pack_bf16 wrote it, and A has contiguous rows.
int64_t EPK(gemm_scratch_bf16)(const EpkGemm *g, int threads);
void EPK(gemm_bf16)(const EpkGemm *g, void *scratch, Parallel *p);
}
