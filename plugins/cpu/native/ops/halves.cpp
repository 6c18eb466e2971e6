// Any kernel of float32 tensors, on float16 ones: inputs are widened, results are rounded to the nearest. And Softmax, whose
// meaning has steps that are rounded each.
#include "../kernels/narrow.h"
#include "../kernels/vmath.h"
#include "ops.h"

namespace EPK_NS {
namespace {

constexpr int MOST = 32;               // inputs or outputs
constexpr int64_t GRAIN = 16384;       // elements

struct Attributes {
  int64_t kernel;                      // its address; its own attributes follow
  int64_t unused;
};

// The context that the kernel sees: outputs of float16 are float32 memory of ours until it has returned.
struct Between {
  epk_context base;                    // first: the kernel gives its address back
  epk_context *outer;
  const DLTensor *given;               // the kernel's inputs
  DLTensor *out, *wide;                // outputs of the step; of the kernel
  int64_t shapes[MOST][MAX_RANK];

  static Between &of(epk_context *ctx) { return *reinterpret_cast<Between *>(ctx); }
};

bool is_half(const DLTensor &t) { return is_type(t, kDLFloat, 16); }

void *output(epk_context *ctx, int index, int32_t ndim, const int64_t *shape) {
  Between &own = Between::of(ctx);
  DLTensor &wide = own.wide[index];
  if (!is_half(own.out[index])) {
    void *data = own.outer->output(own.outer, index, ndim, shape);
    const DLDataType type = wide.dtype;
    wide = own.out[index], wide.dtype = type;
    return data;
  }
  if (ndim > MAX_RANK) return nullptr;
  for (int i = 0; i < ndim; i++) own.shapes[index][i] = shape[i];
  wide.ndim = ndim, wide.shape = own.shapes[index];
  const int64_t size = epk_size(&wide), bytes = checked_mul(size, 4);
  if (bytes < 0) {
    own.outer->fail(own.outer, EPK_OUT_OF_MEMORY, "the result is larger than any memory");
    return nullptr;
  }
  return wide.data = own.outer->scratch(own.outer, size_t(bytes) + 64);
}

// The input is widened memory of ours, so its numbers are copied.
int alias(epk_context *ctx, int index, int input, int32_t ndim, const int64_t *shape) {
  void *to = output(ctx, index, ndim, shape);
  if (!to) return EPK_FAILED;
  const DLTensor &from = Between::of(ctx).given[input];
  memcpy(to, from.data, size_t(epk_size(&from) * width_of(from)));
  return EPK_OK;
}

void *scratch(epk_context *ctx, size_t bytes) { return Between::of(ctx).outer->scratch(Between::of(ctx).outer, bytes); }

void parallel(epk_context *ctx, int64_t count, int64_t grain, epk_body body, void *arg) {
  Between::of(ctx).outer->parallel(Between::of(ctx).outer, count, grain, body, arg);
}

int fail(epk_context *ctx, int status, const char *text) {
  return Between::of(ctx).outer->fail(Between::of(ctx).outer, status, text);
}

void widen_all(const uint16_t *from, float *to, int64_t n) {
  int64_t i = 0;
  for (; i + VL <= n; i += VL) store(to + i, load_f16(from + i));
  for (; i < n; i++) to[i] = (float)load_as<f16>(from + i);
}

void narrow_all(const float *from, uint16_t *to, int64_t n) {
  int64_t i = 0;
  for (; i + VL <= n; i += VL) store_f16(to + i, load(from + i));
  for (; i < n; i++) store_as(to + i, (f16)from[i]);
}

}  // namespace

EPK_OPERATOR(halves) {
  const auto &how = *static_cast<const Attributes *>(attributes);
  if (n_in > MOST || n_out > MOST) return EPK_UNSUPPORTED;
  DLTensor given[MOST], wide[MOST];
  for (int i = 0; i < n_in; i++) {
    given[i] = in[i];
    if (absent(in[i]) || !is_half(in[i])) continue;
    const int64_t size = epk_size(&in[i]);
    auto *floats = static_cast<float *>(ctx->scratch(ctx, size_t(size) * 4 + 64));
    if (!floats) return EPK_FAILED;
    const auto *from = static_cast<const uint16_t *>(in[i].data);
    in_parallel(ctx, size, GRAIN, [&](int64_t begin, int64_t end, int) { widen_all(from + begin, floats + begin, end - begin); });
    given[i].data = floats, given[i].dtype.bits = 32;
  }
  for (int i = 0; i < n_out; i++) {
    wide[i] = out[i];
    if (is_half(out[i])) wide[i].dtype.bits = 32, wide[i].data = nullptr;
  }
  Between own{*ctx, ctx, given, out, wide, {}};
  own.base.output = output, own.base.alias = alias, own.base.scratch = scratch;
  own.base.parallel = parallel, own.base.fail = fail;
  const auto kernel = reinterpret_cast<epk_kernel>(how.kernel);
  if (int status = kernel(&own.base, &how + 1, given, n_in, wide, n_out)) return status;
  for (int i = 0; i < n_out; i++) {
    if (!is_half(out[i]) || !wide[i].data) continue;
    auto *y = static_cast<uint16_t *>(ctx->output(ctx, i, wide[i].ndim, wide[i].shape));
    if (!y) return EPK_FAILED;
    const auto *from = static_cast<const float *>(wide[i].data);
    in_parallel(ctx, epk_size(&wide[i]), GRAIN, [&](int64_t begin, int64_t end, int) { narrow_all(from + begin, y + begin, end - begin); });
  }
  return EPK_OK;
}

// Softmax along the last axis, as ONNX's function body has it: difference, exponential, sum and quotient are rounded each.
EPK_OPERATOR(softmax_halves) {
  const DLTensor &x = in[0];
  const int axis = normal_axis(*static_cast<const int64_t *>(attributes), x.ndim);
  if (axis < 0) return epk_fail(ctx, EPK_INVALID, "the axis is out of range for %s", ShapeText(x).text);
  if (axis != x.ndim - 1) return epk_fail(ctx, EPK_UNSUPPORTED, "an axis before the last");
  auto *y = static_cast<uint16_t *>(ctx->output(ctx, 0, x.ndim, x.shape));
  if (!y) return EPK_FAILED;
  const int64_t n = x.shape[axis], size = epk_size(&x), padded = round_up(n, VL);
  if (size == 0) return EPK_OK;
  auto *rows = static_cast<float *>(ctx->scratch(ctx, size_t(padded) * 4 * size_t(ctx->threads)));
  if (!rows) return EPK_FAILED;
  in_parallel(ctx, size / n, grain_of(ctx, size / n, ceil_div(4096, n)), [&](int64_t begin, int64_t end, int thread) {
    float *row = rows + thread * padded;
    for (int64_t r = begin; r < end; r++) {
      for (int64_t i = n; i < padded; i++) row[i] = -__builtin_inff();
      widen_all(static_cast<const uint16_t *>(x.data) + r * n, row, n);
      vf most = splat(-__builtin_inff()), total{};
      vi odd{};  // lanes with NaN, which the largest passes by
      for (int64_t i = 0; i < padded; i += VL) {
        const vf v = load(row + i);
        most = vmax(most, v), odd |= (vi)(v != v);
      }
      const vf largest = splat(any(odd) ? __builtin_nanf("") : max_lane(most));
      for (int64_t i = 0; i < padded; i += VL) {
        const vf e = round_f16(vexp(round_f16(load(row + i) - largest)));
        store(row + i, e);
        total += i + VL <= n ? e : load_n(row + i, n - i);
      }
      const vf sum = round_f16(splat(sum_of(total)));
      for (int64_t i = 0; i < padded; i += VL) store(row + i, load(row + i) / sum);
      narrow_all(row, y + r * n, n);
    }
  });
  return EPK_OK;
}

}  // namespace EPK_NS
