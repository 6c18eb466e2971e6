// Depthwise convolutions of 8-bit integers: each channel by itself, in int16 with exact int32 sums.
#pragma once
#include "conv_plan.h"
#include "int8.h"

namespace EPK_NS {

// One channel and one filter to a group.
inline bool is_depthwise(const EpkConv &c) { return c.group > 1 && c.channels == c.group && c.filters == c.group; }

int64_t depthwise_packed_size(const EpkConv &c);
void depthwise_pack(const EpkConv &c, const uint8_t *weights, int w_signed, const uint8_t *w_zero, int64_t zeros, void *packed);
int64_t depthwise_scratch(const ConvPlan &plan, int threads);
void depthwise_int8(const ConvPlan &plan, const EpkConvInt8 &conv, const uint8_t *x, const void *packed, uint8_t *out,
                    void *scratch, Parallel *p);

}  // namespace EPK_NS
