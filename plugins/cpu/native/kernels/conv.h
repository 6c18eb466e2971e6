// float32 convolutions of 1 to 3 spatial dimensions, grouped, dilated, strided, transposed, depthwise.
//
// Layouts. Planar is ONNX's: [n][channel][pixels]. Blocked is [n][channel / 16][pixels][16], channels rounded up to
// a multiple of 16 (the same for every instruction set); the channels behind the last hold unspecified finite
// values. Convolutions compute in the blocked layout: keep it between convolutions, pooling, element-wise operators
// and residual additions, and reorder at the borders only (to_blocked_f32, from_blocked_f32). A convolution takes
// either layout on either side, at the price of the reordering; with fewer than 16 input channels (a first layer)
// planar input is the faster one.
#pragma once
#include "epilogue.h"
#include "simd.h"

#ifndef EPK_CONV
#define EPK_CONV
struct EpkConv {
  int64_t n, channels, filters, group;  // channels and filters of all groups
  int64_t in[3], out[3];                // depth, height, width; 1 where absent
  int64_t kernel[3], stride[3], dilation[3];
  int64_t pad[3];                       // at the beginnings; those at the ends follow from `out`
  int32_t transposed;
  int32_t in_blocked, out_blocked;      // layouts; the weights are as ONNX has them
  int32_t winograd;                     // outputs down and across a tile, 2 or 4, of an image (depth 1) with kernels
                                        // of 3x3 at stride 1 (winograd.h); 0, and anything else: direct
  EpkEpilogue epilogue;                 // `add` has the layout of the output; bias was given to conv_pack_f32
};
#endif

extern "C" {
// Bytes of the packed weights and bias, and the packing. It depends on all but n, in, out and layouts.
int64_t EPK(conv_packed_size_f32)(const EpkConv *c);
void EPK(conv_pack_f32)(const EpkConv *c, const float *weights, const float *bias, float *packed, Parallel *p);
// Bytes of scratch (64-byte aligned); -1 where the padded image is larger than any memory.
int64_t EPK(conv_scratch_f32)(const EpkConv *c, int threads);
void EPK(conv_f32)(const EpkConv *c, const float *x, const float *packed, float *out, void *scratch, Parallel *p);
// Reordering of [n][c][pixels]; to_blocked fills channels up to a multiple of 16 with zeros.
void EPK(to_blocked_f32)(const float *x, int64_t n, int64_t c, int64_t pixels, float *out, Parallel *p);
void EPK(from_blocked_f32)(const float *x, int64_t n, int64_t c, int64_t pixels, float *out, Parallel *p);
}
