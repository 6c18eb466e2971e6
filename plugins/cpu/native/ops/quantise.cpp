// Quantisation to 8 bits and back.
#include "finish.h"

namespace EPK_NS {
namespace {

// Outer, axis and inner sizes for one scale, or for one per index of an axis; false: it does not fit.
bool spread(const DLTensor &x, const DLTensor &scale, int64_t wanted, int64_t *outer, int64_t *size, int64_t *inner) {
  *outer = epk_size(&x), *size = 1, *inner = 1;
  if (epk_size(&scale) == 1 && scale.ndim <= 1) {
    const int64_t all = *outer;
    *outer = 1, *inner = all;
    return true;
  }
  const int axis = normal_axis(wanted, x.ndim);
  if (axis < 0 || scale.ndim != 1 || scale.shape[0] != x.shape[axis]) return false;
  *outer = product(x.shape, axis), *size = x.shape[axis], *inner = product(x.shape + axis + 1, x.ndim - axis - 1);
  return true;
}

}  // namespace

// Attributes: axis. Inputs: x, scale, zero point (may be absent).
EPK_OPERATOR(quantise_linear) {
  int64_t outer, size, inner;
  const DLTensor &x = in[0];
  if (!spread(x, in[1], *static_cast<const int64_t *>(attributes), &outer, &size, &inner) ||
      (n_in > 2 && !absent(in[2]) && epk_size(&in[2]) != epk_size(&in[1]))) {
    return epk_fail(ctx, EPK_UNSUPPORTED, "scale %s for x %s", ShapeText(in[1]).text, ShapeText(x).text);
  }
  void *y = ctx->output(ctx, 0, x.ndim, x.shape);
  if (!y) return EPK_FAILED;
  if (epk_size(&x) == 0) return EPK_OK;
  Threads threads(ctx);
  EPK(quantise)((const float *)x.data, (const float *)in[1].data, n_in > 2 && !absent(in[2]) ? in[2].data : nullptr, y,
                out[0].dtype.code == kDLInt, outer, size, inner, &threads);
  return EPK_OK;
}

// As above.
EPK_OPERATOR(dequantise_linear) {
  int64_t outer, size, inner;
  const DLTensor &x = in[0];
  if (!spread(x, in[1], *static_cast<const int64_t *>(attributes), &outer, &size, &inner) ||
      (n_in > 2 && !absent(in[2]) && epk_size(&in[2]) != epk_size(&in[1]))) {
    return epk_fail(ctx, EPK_UNSUPPORTED, "scale %s for x %s", ShapeText(in[1]).text, ShapeText(x).text);
  }
  auto *y = static_cast<float *>(ctx->output(ctx, 0, x.ndim, x.shape));
  if (!y) return EPK_FAILED;
  if (epk_size(&x) == 0) return EPK_OK;
  Threads threads(ctx);
  EPK(dequantise)(x.data, (const float *)in[1].data, n_in > 2 && !absent(in[2]) ? in[2].data : nullptr, y,
                  x.dtype.code == kDLInt, outer, size, inner, &threads);
  return EPK_OK;
}

// Attributes: none. Outputs: x as uint8, its scale, its zero point. The scale of zeros is 1.
EPK_OPERATOR(dynamic_quantise) {
  const DLTensor &x = in[0];
  const auto *from = static_cast<const float *>(x.data);
  const int64_t size = epk_size(&x);
  float found;
  uint8_t point;
  if (int status = dynamic_scale(ctx, from, size, &found, &point)) return status;
  auto *y = static_cast<uint8_t *>(ctx->output(ctx, 0, x.ndim, x.shape));
  auto *scale = static_cast<float *>(ctx->output(ctx, 1, 0, nullptr));
  auto *zero = static_cast<uint8_t *>(ctx->output(ctx, 2, 0, nullptr));
  if (!y || !scale || !zero) return EPK_FAILED;
  *scale = found, *zero = point;
  if (size == 0) return EPK_OK;
  Threads threads(ctx);
  EPK(quantise)(from, scale, zero, y, 0, 1, 1, size, &threads);
  return EPK_OK;
}

}  // namespace EPK_NS
