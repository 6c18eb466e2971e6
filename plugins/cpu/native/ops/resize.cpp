// Resize, one axis after the other.
#include "../kernels/resize.h"

#include "ops.h"

namespace EPK_NS {
namespace {

struct ResizeAttributes {
  int32_t mode, coordinates, nearest, exclude_outside;
  float cubic_a;
  int32_t count;  // of the axes that are resized; -1: all, in order
  int64_t axes[MAX_RANK];
};

struct Plan {
  int count, axes[MAX_RANK];
  int64_t dims[MAX_RANK];  // of the result
  double up[MAX_RANK], down[MAX_RANK];

  // Of axis `i` the simplest up / down with the value `scale`, so that positions stay on the grid: 0.6 is 3 / 5.
  bool set_scale(int axis, float scale, int64_t length) {
    if (!(scale > 0) || !(scale < 1e12f)) return false;
    up[axis] = double(scale), down[axis] = 1;
    for (int d = 1; d <= 1024; d++) {
      const double u = __builtin_rint(double(scale) * d);
      if (float(u / d) != scale) continue;
      up[axis] = u, down[axis] = d;
      break;
    }
    const double size = __builtin_floor(double(length) * up[axis] / down[axis]);
    if (size > 1e12) return false;
    dims[axis] = int64_t(size);
    return true;
  }

  // From `scales` or `sizes`; false: neither fits.
  bool set(const ResizeAttributes &how, const DLTensor &x, const DLTensor *in, int n_in) {
    count = how.count < 0 ? x.ndim : how.count;
    for (int i = 0; i < x.ndim; i++) dims[i] = x.shape[i], up[i] = down[i] = 1;
    bool seen[MAX_RANK] = {};
    for (int i = 0; i < count; i++) {
      axes[i] = how.count < 0 ? i : normal_axis(how.axes[i], x.ndim);
      if (axes[i] < 0 || seen[axes[i]]) return false;
      seen[axes[i]] = true;
    }
    if (n_in > 2 && !absent(in[2]) && epk_size(&in[2]) > 0) {
      if (epk_size(&in[2]) != count || !is_f32(in[2]) || (n_in > 3 && !absent(in[3]) && epk_size(&in[3]) > 0)) return false;
      for (int i = 0; i < count; i++)
        if (!set_scale(axes[i], static_cast<const float *>(in[2].data)[i], x.shape[axes[i]])) return false;
      return true;
    }
    int64_t sizes[MAX_RANK];
    if (n_in < 4 || absent(in[3]) || epk_size(&in[3]) != count || read_ints(in[3], sizes) < 0) return false;
    for (int i = 0; i < count; i++) {
      if (sizes[i] < 0 || x.shape[axes[i]] == 0) return false;
      dims[axes[i]] = sizes[i], up[axes[i]] = double(sizes[i]), down[axes[i]] = double(x.shape[axes[i]]);
    }
    return true;
  }
};

}  // namespace

// Inputs: X, roi (not read), scales, sizes.
EPK_OPERATOR(resize) {
  const auto &how = *static_cast<const ResizeAttributes *>(attributes);
  const DLTensor &x = in[0];
  int64_t now[MAX_RANK], largest = epk_size(&x), table = 0;
  Plan plan;
  if (!plan.set(how, x, in, n_in)) return epk_fail(ctx, EPK_UNSUPPORTED, "scales or sizes that do not fit X %s", ShapeText(x).text);
  int axes[MAX_RANK], count = 0;
  for (int i = 0; i < x.ndim; i++) {
    now[i] = x.shape[i];
    table = max_of(table, plan.dims[i]);
    if (plan.dims[i] != x.shape[i] || plan.up[i] != plan.down[i]) axes[count++] = i;
  }
  // Where an image grows, the last axis first: whole rows are then only copied. Elsewhere sums keep their order.
  const bool reversed = how.mode == EPK_NEAREST && product(plan.dims, x.ndim) > largest;
  if (count == 0) return ctx->alias(ctx, 0, 0, x.ndim, x.shape);
  auto *y = static_cast<float *>(ctx->output(ctx, 0, x.ndim, plan.dims));
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
    const int at = axes[reversed ? count - 1 - i : i];
    EpkResizeAxis axis{};
    axis.in = now[at], axis.out = plan.dims[at], axis.up = plan.up[at], axis.down = plan.down[at];
    axis.mode = how.mode, axis.coordinates = how.coordinates, axis.nearest = how.nearest;
    axis.exclude_outside = how.exclude_outside, axis.cubic_a = how.cubic_a;
    now[at] = axis.out;
    float *to = y;
    if (i + 1 < count) {
      to = static_cast<float *>(ctx->scratch(ctx, size_t(product(now, x.ndim)) * 4));
      if (!to) return EPK_FAILED;
    }
    EPK(resize_table)(&axis, index, weight);
    EPK(resize_f32)(&axis, index, weight, from, to, product(now, at), product(now + at + 1, x.ndim - at - 1), &threads);
    from = to;
  }
  return EPK_OK;
}

}  // namespace EPK_NS
