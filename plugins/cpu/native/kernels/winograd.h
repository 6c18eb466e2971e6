// Winograd's minimal filtering of 3x3 kernels at stride 1: F(m x m, 3 x 3), m = 2 or 4.
//
// A tile of m x m outputs needs (m + 2)² products for each channel and filter in the place of 9 m²: 2.25 times fewer
// for m = 2, 4 times for m = 4. Y = Aᵀ [ Σ_c (G g Gᵀ) ⊙ (Bᵀ d B) ] A for a filter g and (m + 2)² inputs d (A. Lavin,
// S. Gray: Fast Algorithms for Convolutional Neural Networks, 2016). The sum over channels is a matrix product for
// each of the (m + 2)² points.
#pragma once
#include "conv_plan.h"

namespace EPK_NS {

// Points at which the polynomials are evaluated: 0, infinity, and 1, -1 for m = 2; NEAR, -NEAR, FAR, -FAR for m = 4.
// Of those tried, these lose least: about three times the rounding error of a direct sum, where 1 and 2 lose ten times.
constexpr double NEAR = 0.625, FAR = 1.5;

// Elements of the packed weights (without bias), and the packing: [panel][point][channel][PANEL].
int64_t winograd_packed_size(const ConvPlan &plan);
void winograd_pack(const ConvPlan &plan, const float *weights, float *packed, Parallel *p);

// Elements of scratch memory.
int64_t winograd_scratch(const ConvPlan &plan, int threads);
// One blocked image to another; `raw`: without the epilogue.
void winograd(const ConvPlan &plan, const float *x, const float *weights, const float *bias, const float *add,
              bool raw, float *out, float *scratch, Parallel *p);

}  // namespace EPK_NS
