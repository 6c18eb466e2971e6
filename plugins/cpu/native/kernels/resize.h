// Resizing of float32, one axis at a time: every output is a weighted sum of a few inputs of its line.
#pragma once
#include "simd.h"

#ifndef EPK_RESIZE
#define EPK_RESIZE
enum EpkResizeMode { EPK_NEAREST, EPK_LINEAR, EPK_CUBIC };
enum EpkCoordinates {
  EPK_HALF_PIXEL, EPK_HALF_PIXEL_SYMMETRIC, EPK_PYTORCH_HALF_PIXEL, EPK_ALIGN_CORNERS, EPK_ASYMMETRIC,
  EPK_CROP_AND_RESIZE
};
enum EpkNearest { EPK_ROUND_PREFER_FLOOR, EPK_ROUND_PREFER_CEIL, EPK_FLOOR, EPK_CEIL };

struct EpkResizeAxis {
  int64_t in, out;
  double up, down;          // the scale is up / down: whole numbers keep positions exact
  int32_t mode, coordinates, nearest, exclude_outside;
  float cubic_a;            // ONNX's default is -0.75
  float start, end;         // the region of crop_and_resize
  float extrapolation;      // the value outside it
};
#endif

extern "C" {
// Taps of an output: 1 nearest, 2 linear, 4 cubic.
int64_t EPK(resize_taps)(int mode);
// The table of an axis: index [out][taps] (-1: the extrapolation value) and weight [out][taps].
void EPK(resize_table)(const EpkResizeAxis *axis, int32_t *index, float *weight);
// x [outer, in, inner] to out [outer, axis->out, inner].
void EPK(resize_f32)(const EpkResizeAxis *axis, const int32_t *index, const float *weight, const float *x, float *out,
                     int64_t outer, int64_t inner, Parallel *p);
}
