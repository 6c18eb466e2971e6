// Normalisations and softmax around the math kernels.
#include "../kernels/norm.h"

#include "../kernels/softmax.h"
#include "../kernels/vmath.h"
#include "ops.h"

namespace EPK_NS {
namespace {

struct NormAttributes {
  int64_t axis;      // of LayerNormalization and Softmax; groups of GroupNormalization
  int64_t flag;      // rms; logarithm; 1: instance normalisation
  float epsilon;
  int32_t flat;      // Softmax until opset 12: everything from the axis on is one row
};

const float *floats(const DLTensor *in, int n_in, int index) {
  return index < n_in && !absent(in[index]) ? static_cast<const float *>(in[index].data) : nullptr;
}

}  // namespace

EPK_OPERATOR(softmax) {
  const auto &how = *static_cast<const NormAttributes *>(attributes);
  const DLTensor &x = in[0];
  int axis = normal_axis(how.axis, x.ndim);
  if (how.flat && how.axis == x.ndim) axis = x.ndim;
  if (axis < 0) return epk_fail(ctx, EPK_INVALID, "axis %lld is out of range", (long long)how.axis);
  auto *y = static_cast<float *>(ctx->output(ctx, 0, x.ndim, x.shape));
  if (!y) return EPK_FAILED;
  if (epk_size(&x) == 0) return EPK_OK;
  const int64_t outer = product(x.shape, axis);
  const int64_t n = how.flat ? product(x.shape + axis, x.ndim - axis) : x.shape[axis];
  const int64_t inner = how.flat ? 1 : product(x.shape + axis + 1, x.ndim - axis - 1);
  Threads threads(ctx);
  EPK(softmax_f32)(static_cast<const float *>(x.data), y, outer, n, inner, int(how.flag), &threads);
  return EPK_OK;
}

// Everything from the axis on is a row. The bias has fewer rows: each counts for several neighbours (flag), or all of
// them begin again.
EPK_OPERATOR(bias_softmax) {
  const auto &how = *static_cast<const NormAttributes *>(attributes);
  const DLTensor &x = in[0], &bias = in[1];
  const int axis = normal_axis(how.axis, x.ndim);
  if (axis < 0) return EPK_UNSUPPORTED;
  const int64_t rows = product(x.shape, axis), n = product(x.shape + axis, x.ndim - axis);
  const int64_t own = n ? epk_size(&bias) / n : 0;
  if (own * n != epk_size(&bias) || (own && rows % own) || (!own && rows * n != 0)) return EPK_UNSUPPORTED;
  auto *y = static_cast<float *>(ctx->output(ctx, 0, x.ndim, x.shape));
  if (!y) return EPK_FAILED;
  const auto *from = static_cast<const float *>(x.data), *terms = static_cast<const float *>(bias.data);
  if (rows * n == 0) return EPK_OK;
  in_parallel(ctx, rows, grain_of(ctx, rows, ceil_div(8192, n)), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; r++) {
      const float *row = from + r * n, *term = terms + (how.flag ? r / (rows / own) : r % own) * n;
      float *to = y + r * n;
      for (int64_t i = 0; i < n; i++) to[i] = row[i] + term[i];
      EPK(softmax_f32)(to, to, 1, n, 1, 0, nullptr);
    }
  });
  return EPK_OK;
}

// Inputs: x, scale, bias, skip, skip bias (all but x may be absent; skip may repeat). Outputs: y, mean, inverse, sum.
EPK_OPERATOR(layer_norm) {
  const auto &how = *static_cast<const NormAttributes *>(attributes);
  const DLTensor &x = in[0];
  const int axis = normal_axis(how.axis, x.ndim);
  if (axis < 0) return epk_fail(ctx, EPK_INVALID, "axis %lld is out of range", (long long)how.axis);
  const int64_t n = product(x.shape + axis, x.ndim - axis), rows = product(x.shape, axis);
  const bool skips = n_in > 3 && !absent(in[3]) && n > 0;
  const int64_t skip_rows = skips ? epk_size(&in[3]) / n : rows;
  for (int i = 1; i < n_in; i++) {
    if (!absent(in[i]) && epk_size(&in[i]) != (i == 3 ? skip_rows * n : n)) {
      return epk_fail(ctx, EPK_UNSUPPORTED, "an input of shape %s beside %s", ShapeText(in[i]).text, ShapeText(x).text);
    }
  }
  auto *y = static_cast<float *>(ctx->output(ctx, 0, x.ndim, x.shape));
  if (!y) return EPK_FAILED;
  float *statistics[2] = {}, *sum = nullptr;
  int64_t shape[MAX_RANK];
  for (int i = 0; i < x.ndim; i++) shape[i] = i < axis ? x.shape[i] : 1;
  for (int i = 0; i < 2; i++) {
    if (n_out > 1 + i && out[1 + i].ndim >= 0 && !(statistics[i] = (float *)ctx->output(ctx, 1 + i, x.ndim, shape))) return EPK_FAILED;
  }
  if (n_out > 3 && out[3].ndim >= 0 && !(sum = (float *)ctx->output(ctx, 3, x.ndim, x.shape))) return EPK_FAILED;
  if (epk_size(&x) == 0) return EPK_OK;
  if (skip_rows == 0 || rows % skip_rows != 0) return epk_fail(ctx, EPK_UNSUPPORTED, "a skip of shape %s beside %s", ShapeText(in[3]).text, ShapeText(x).text);
  Threads threads(ctx);
  const auto from = [](float *data, int64_t offset) { return data ? data + offset : nullptr; };
  for (int64_t r = 0; r < rows; r += skip_rows) {
    EPK(layer_norm_f32)(static_cast<const float *>(x.data) + r * n, floats(in, n_in, 3), floats(in, n_in, 4), floats(in, n_in, 1),
                        floats(in, n_in, 2), y + r * n, from(sum, r * n), from(statistics[0], r), from(statistics[1], r),
                        skip_rows, n, how.epsilon, int(how.flag), &threads);
  }
  return EPK_OK;
}

// Inputs: x [n, c, ...], scale [c], bias [c].
EPK_OPERATOR(group_norm) {
  const auto &how = *static_cast<const NormAttributes *>(attributes);
  const DLTensor &x = in[0];
  if (x.ndim < 2) return epk_fail(ctx, EPK_INVALID, "the input X %s has no channels", ShapeText(x).text);
  const int64_t channels = x.shape[1], groups = how.flag ? channels : how.axis;
  if (groups < 1 || channels % groups || epk_size(&in[1]) != channels || epk_size(&in[2]) != channels) {
    return epk_fail(ctx, EPK_INVALID, "%lld groups, scale %s and bias %s do not fit X %s", (long long)groups, ShapeText(in[1]).text, ShapeText(in[2]).text, ShapeText(x).text);
  }
  auto *y = static_cast<float *>(ctx->output(ctx, 0, x.ndim, x.shape));
  if (!y) return EPK_FAILED;
  if (epk_size(&x) == 0) return EPK_OK;
  Threads threads(ctx);
  EPK(group_norm_f32)(static_cast<const float *>(x.data), floats(in, n_in, 1), floats(in, n_in, 2), y, x.shape[0], channels,
                      product(x.shape + 2, x.ndim - 2), groups, how.epsilon, &threads);
  return EPK_OK;
}

// Attributes: size, alpha / size, beta, bias. Input: x [n, c, ...].
EPK_OPERATOR(local_response) {
  struct Attributes {
    int64_t size;
    float alpha, beta, bias, unused;
  };
  const auto &how = *static_cast<const Attributes *>(attributes);
  const DLTensor &x = in[0];
  if (x.ndim < 2) return EPK_UNSUPPORTED;
  auto *y = static_cast<float *>(ctx->output(ctx, 0, x.ndim, x.shape));
  if (!y) return EPK_FAILED;
  const int64_t channels = x.shape[1], inner = product(x.shape + 2, x.ndim - 2), strips = ceil_div(inner, VL);
  const int64_t before = (how.size - 1) / 2, after = how.size / 2;
  const auto *from = static_cast<const float *>(x.data);
  in_parallel(ctx, x.shape[0] * strips, grain_of(ctx, x.shape[0] * strips, ceil_div(2048, channels * VL + 1)), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t place = i / strips * channels * inner + i % strips * VL, lanes = min_of<int64_t>(VL, inner - i % strips * VL);
      for (int64_t c = 0; c < channels; c++) {
        vf sum{};
        const int64_t last = min_of(channels - 1, c + after);
        for (int64_t k = max_of<int64_t>(0, c - before); k <= last; k++) {
          const vf value = load_n(from + place + k * inner, lanes);
          sum = fma_of(value, value, sum);
        }
        const vf scale = vpow(sum * how.alpha + how.bias, splat(how.beta));
        store_n(y + place + c * inner, load_n(from + place + c * inner, lanes) / scale, lanes);
      }
    }
  });
  return EPK_OK;
}

// Attributes: axis, p (1 or 2). x over its norm along the axis; 0 where that is 0.
EPK_OPERATOR(lp_normalise) {
  const auto *how = static_cast<const int64_t *>(attributes);
  const DLTensor &x = in[0];
  const int axis = normal_axis(how[0], x.ndim);
  if (axis < 0) return EPK_UNSUPPORTED;
  auto *y = static_cast<float *>(ctx->output(ctx, 0, x.ndim, x.shape));
  if (!y) return EPK_FAILED;
  if (epk_size(&x) == 0) return EPK_OK;
  const int64_t outer = product(x.shape, axis), n = x.shape[axis], inner = product(x.shape + axis + 1, x.ndim - axis - 1);
  const auto *from = static_cast<const float *>(x.data);
  const bool squares = how[1] == 2;
  in_parallel(ctx, outer * inner, grain_of(ctx, outer * inner, ceil_div(8192, n)), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t place = i / inner * n * inner + i % inner;
      double sum = 0;
      for (int64_t k = 0; k < n; k++) {
        const double value = from[place + k * inner];
        sum += squares ? value * value : __builtin_fabs(value);
      }
      const float norm = float(squares ? __builtin_sqrt(sum) : sum);
      for (int64_t k = 0; k < n; k++) y[place + k * inner] = norm == 0 ? 0.0f : from[place + k * inner] / norm;
    }
  });
  return EPK_OK;
}

// Inputs: x [n, c, ...], factor [c], term [c].
EPK_OPERATOR(channel_affine) {
  const DLTensor &x = in[0];
  if (x.ndim < 2 || epk_size(&in[1]) != x.shape[1] || epk_size(&in[2]) != x.shape[1]) {
    return epk_fail(ctx, EPK_INVALID, "scale %s does not fit X %s", ShapeText(in[1]).text, ShapeText(x).text);
  }
  auto *y = static_cast<float *>(ctx->output(ctx, 0, x.ndim, x.shape));
  if (!y) return EPK_FAILED;
  if (epk_size(&x) == 0) return EPK_OK;
  Threads threads(ctx);
  EPK(channel_affine_f32)(static_cast<const float *>(x.data), floats(in, n_in, 1), floats(in, n_in, 2), y, x.shape[0],
                          x.shape[1], product(x.shape + 2, x.ndim - 2), 0, &threads);
  return EPK_OK;
}

}  // namespace EPK_NS
