// Resize, one axis after the other.
#include "../kernels/resize.h"

#include "ops.h"

namespace EPK_NS {
namespace {

struct ResizeAttributes {
  int32_t mode, coordinates, nearest, exclude_outside;
  float cubic_a, unused;
};

// The size and scale of each axis from `scales` or `sizes`; false: neither fits.
bool sizes_of(const DLTensor &x, const DLTensor *in, int n_in, int64_t *dims, double *scales) {
  if (n_in > 2 && !absent(in[2]) && epk_size(&in[2]) > 0) {
    if (epk_size(&in[2]) != x.ndim || !is_f32(in[2])) return false;
    for (int i = 0; i < x.ndim; i++) {
      scales[i] = double(static_cast<const float *>(in[2].data)[i]);
      const double size = __builtin_floor(double(x.shape[i]) * scales[i]);
      if (!(scales[i] > 0) || size > 1e12) return false;
      dims[i] = int64_t(size);
    }
    return true;
  }
  if (n_in < 4 || absent(in[3]) || epk_size(&in[3]) != x.ndim || read_ints(in[3], dims) < 0) return false;
  for (int i = 0; i < x.ndim; i++) {
    if (dims[i] < 0 || x.shape[i] == 0) return false;
    scales[i] = double(dims[i]) / double(x.shape[i]);
  }
  return true;
}

}  // namespace

// Inputs: X, roi (not read), scales, sizes.
EPK_OPERATOR(resize) {
  const auto &how = *static_cast<const ResizeAttributes *>(attributes);
  const DLTensor &x = in[0];
  int64_t dims[MAX_RANK], now[MAX_RANK], largest = epk_size(&x), table = 0;
  double scales[MAX_RANK];
  if (!sizes_of(x, in, n_in, dims, scales)) return epk_fail(ctx, EPK_UNSUPPORTED, "scales or sizes that do not fit X %s", ShapeText(x).text);
  int axes[MAX_RANK], count = 0;
  for (int i = 0; i < x.ndim; i++) {
    now[i] = x.shape[i];
    table = max_of(table, dims[i]);
    if (dims[i] != x.shape[i] || scales[i] != 1.0) axes[count++] = i;
  }
  if (count == 0) return ctx->alias(ctx, 0, 0, x.ndim, x.shape);
  auto *y = static_cast<float *>(ctx->output(ctx, 0, x.ndim, dims));
  if (!y) return EPK_FAILED;
  if (epk_size(&out[0]) == 0) return EPK_OK;
  if (largest == 0) return epk_fail(ctx, EPK_UNSUPPORTED, "nothing to resize");
  const int64_t taps = EPK(resize_taps)(how.mode);
  auto *index = static_cast<int32_t *>(ctx->scratch(ctx, size_t(table * taps) * 4));
  auto *weight = static_cast<float *>(ctx->scratch(ctx, size_t(table * taps) * 4));
  if (!index || !weight) return EPK_FAILED;
  const auto *from = static_cast<const float *>(x.data);
  Threads threads(ctx);
  for (int i = 0; i < count; i++) {
    EpkResizeAxis axis{};
    axis.in = now[axes[i]], axis.out = dims[axes[i]], axis.scale = scales[axes[i]];
    axis.mode = how.mode, axis.coordinates = how.coordinates, axis.nearest = how.nearest;
    axis.exclude_outside = how.exclude_outside, axis.cubic_a = how.cubic_a;
    now[axes[i]] = axis.out;
    float *to = y;
    if (i + 1 < count) {
      to = static_cast<float *>(ctx->scratch(ctx, size_t(product(now, x.ndim)) * 4));
      if (!to) return EPK_FAILED;
    }
    EPK(resize_table)(&axis, index, weight);
    EPK(resize_f32)(&axis, index, weight, from, to, product(now, axes[i]), product(now + axes[i] + 1, x.ndim - axes[i] - 1), &threads);
    from = to;
  }
  return EPK_OK;
}

}  // namespace EPK_NS
