// Copies between dense and strided memory: what transposing, slicing, expanding, padding and tiling come down to.
#pragma once
#include "ops.h"

namespace EPK_NS {

// to (dense, of these dimensions) = from, whose strides are in elements of `width` bytes: 1, 2, 4, 8 or 16.
void strided_copy(epk_context *ctx, const char *from, char *to, int rank, const int64_t *dims, const int64_t *strides,
                  int64_t width);

// Rows of `bytes` bytes from one pitch to another.
void copy_rows(epk_context *ctx, const char *from, int64_t from_pitch, char *to, int64_t to_pitch, int64_t rows,
               int64_t bytes);

// Repeats one element.
void fill_with(epk_context *ctx, char *to, int64_t count, const char *element, int64_t width);

// Strides of a dense tensor, in elements.
inline void dense_strides(const DLTensor &t, int64_t *strides) {
  int64_t stride = 1;
  for (int i = t.ndim - 1; i >= 0; i--) {
    strides[i] = stride;
    stride *= t.shape[i];
  }
}

}  // namespace EPK_NS
