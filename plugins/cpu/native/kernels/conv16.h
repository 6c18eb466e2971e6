// Convolutions with weights and products of 16 bits, as gemm16.h has them: in the blocked layout, of one group.
#pragma once
#include "conv.h"
#include "gemm16.h"

extern "C" {
// Bytes of the packed weights and bias, and the packing; the form is EPK_BF16_DOT or EPK_BF16_HALF.
// `matrix`: scratch of conv16_matrix_size bytes.
int64_t EPK(conv16_packed_size)(const EpkConv *c);
int64_t EPK(conv16_matrix_size)(const EpkConv *c);
void EPK(conv16_pack)(const EpkConv *c, const float *weights, const float *bias, int form, void *packed, float *matrix,
                      Parallel *p);
// As conv_f32; out_blocked is 1.
int64_t EPK(conv16_scratch)(const EpkConv *c, int threads);
void EPK(conv16)(const EpkConv *c, const float *x, const void *packed, float *out, void *scratch, Parallel *p);
}
