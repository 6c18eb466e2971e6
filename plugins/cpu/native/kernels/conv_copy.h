// What goes into a convolution and comes out of it through scratch memory.
#pragma once
#include "conv_plan.h"

namespace EPK_NS {

// One image, padded, in the layout that the reduction wants.
void copy_image(const ConvPlan &plan, const float *x, float *to, Parallel *p);

// Rows of a padded image that are copied when they are needed, and stay in the cache: so much of it each thread holds.
// Where the weights are small, so that they stay there too; and not for images that are small as a whole.
struct Strips {
  int64_t rows;    // of the outputs, of one strip; 0: the image is copied as a whole
  int64_t height;  // rows of the padded image
  int64_t size;    // elements
  Strips(const ConvPlan &plan, int threads);
};
// Padded rows [first, end) of an image with depth 1, to a strip.
void copy_strip(const ConvPlan &plan, const Strips &strips, const float *x, int64_t first, int64_t end, float *to);

// One image from the blocks of each group to the layout that was asked for, with the epilogue.
void copy_result(const ConvPlan &plan, const float *from, const float *bias, float *out, int64_t image, Parallel *p);

}  // namespace EPK_NS
