// What follows a product of 8-bit integers: scales, zero points, bias, and the type of the result.
#pragma once
#include "../kernels/int8.h"
#include "ops.h"

namespace EPK_NS {

// Inputs of quantised products. All but X and W may be absent; without scales the result is the sums, in int32.
enum { IN_X, IN_W, IN_RESIDUAL, IN_X_SCALE, IN_X_ZERO, IN_W_SCALE, IN_W_ZERO, IN_Y_SCALE, IN_Y_ZERO, IN_BIAS, IN_OFFSET };

inline bool is_byte(const DLTensor &t) { return t.dtype.bits == 8 && t.dtype.code <= kDLUInt; }

inline const DLTensor *given(const DLTensor *in, int n_in, int index) {
  return index < n_in && !absent(in[index]) ? &in[index] : nullptr;
}

// The zero point of a tensor of 8 bits: one number.
inline int zero_of(epk_context *ctx, const DLTensor *zero, int32_t *value) {
  *value = 0;
  if (!zero) return EPK_OK;
  if (epk_size(zero) != 1) return epk_fail(ctx, EPK_UNSUPPORTED, "several zero points: %s", ShapeText(*zero).text);
  *value = zero->dtype.code == kDLInt ? *static_cast<const int8_t *>(zero->data) : *static_cast<const uint8_t *>(zero->data);
  return EPK_OK;
}

// Scale and zero point of DynamicQuantizeLinear; the scale of zeros is 1.
inline int dynamic_scale(epk_context *ctx, const float *x, int64_t size, float *scale, uint8_t *zero) {
  vf least{}, most{};
  vi odd{};  // lanes that saw an infinity or NaN
  for (int64_t i = 0; i < size; i += VL) {
    const vf v = size - i >= VL ? load(x + i) : load_n(x + i, size - i);
    least = vmin(v, least), most = vmax(v, most);
    odd |= (vi)(v - v != 0.0f);
  }
  const float low = -max_lane(-least), range = (max_lane(most) - low) / 255.0f;
  if (any(odd) || !(range - range == 0)) return epk_fail(ctx, EPK_UNSUPPORTED, "the range of x is not finite");
  *scale = range > 0 ? range : 1.0f;
  *zero = uint8_t(__builtin_rintf(min_of(255.0f, max_of(0.0f, -low / *scale))));
  return EPK_OK;
}

inline bool is_f32_of(const DLTensor *t, int64_t size) { return is_f32(*t) && epk_size(t) == size; }

// Everything but what is done to the sums of each row. relu: negative results become zero.
inline int set_finish(epk_context *ctx, const DLTensor *in, int n_in, DLDataType result, int64_t columns, bool relu,
                      EpkRequantise &f) {
  const DLTensor *x = given(in, n_in, IN_X_SCALE), *w = given(in, n_in, IN_W_SCALE), *y = given(in, n_in, IN_Y_SCALE);
  const DLTensor *bias = given(in, n_in, IN_BIAS), *offset = given(in, n_in, IN_OFFSET);
  if (bias) {
    if (epk_size(bias) != columns) return epk_fail(ctx, EPK_INVALID, "the bias %s does not have %lld elements", ShapeText(*bias).text, (long long)columns);
    f.bias = static_cast<const int32_t *>(bias->data);
  }
  f.result = EPK_INT32;
  if (!x || !w) return EPK_OK;
  const int64_t scales = epk_size(w);
  if (!is_f32_of(x, 1) || !is_f32(*w) || (scales != 1 && scales != columns) || (y && !is_f32_of(y, 1))) {
    return epk_fail(ctx, EPK_UNSUPPORTED, "scales %s and %s", ShapeText(*x).text, ShapeText(*w).text);
  }
  auto *numbers = static_cast<float *>(ctx->scratch(ctx, size_t(scales + columns) * 4));
  if (!numbers) return EPK_FAILED;
  const double of_x = *static_cast<const float *>(x->data), of_y = y ? *static_cast<const float *>(y->data) : 1.0;
  for (int64_t i = 0; i < scales; i++) numbers[i] = float(of_x * double(static_cast<const float *>(w->data)[i]) / of_y);
  f.multiplier = numbers, f.per_column = scales != 1;
  if (offset) {
    if (!is_f32_of(offset, columns)) return epk_fail(ctx, EPK_INVALID, "the bias %s does not have %lld elements", ShapeText(*offset).text, (long long)columns);
    f.offset = numbers + scales;
    for (int64_t i = 0; i < columns; i++) numbers[scales + i] = float(double(static_cast<const float *>(offset->data)[i]) / of_y);
  }
  f.result = EPK_FLOAT32;
  if (!y) return EPK_OK;
  const bool is_signed = result.code == kDLInt;
  f.result = is_signed ? EPK_INT8 : EPK_UINT8;
  f.low = is_signed ? -128 : 0, f.high = is_signed ? 127 : 255;
  if (int status = zero_of(ctx, given(in, n_in, IN_Y_ZERO), &f.zero)) return status;
  if (relu) f.low = f.zero;
  return EPK_OK;
}

}  // namespace EPK_NS
