// Transposed convolutions of few filters whose outputs do not overlap: the kernel is as large as the stride, as where a
// network doubles its image. That is a product of matrices with a column for each filter and tap, whose results are then
// put in their places; in phases, nearly all lanes of a block of filters would be idle.
#pragma once
#include "conv.h"

namespace EPK_NS {

// It depends on what packing depends on.
bool is_shuffle(const EpkConv &c);

// What conv.h has of the same names, for these. Sizes are in bytes.
int64_t shuffle_packed_size(const EpkConv &c);
void shuffle_pack(const EpkConv &c, const float *weights, const float *bias, float *packed, Parallel *p);
int64_t shuffle_scratch(const EpkConv &c, int threads);
void shuffle(const EpkConv &c, const float *x, const float *packed, float *out, void *scratch, Parallel *p);

}  // namespace EPK_NS
