// Convolutions, pooling and what changes between the planar and the blocked layout (see kernels/conv.h). A blocked
// image is a tensor [n, channels / 16, spatial..., 16]; how many channels it really has, the step knows.
#include "../kernels/conv.h"
#include "../kernels/norm.h"
#include "../kernels/pool.h"
#include "ops.h"

namespace EPK_NS {
namespace {

constexpr int64_t BLOCK_CHANNELS = 16;

enum { PAD_GIVEN, PAD_SAME_UPPER, PAD_SAME_LOWER, PAD_VALID };

struct Window {
  int64_t rank, auto_pad, ceil;
  int64_t kernel[3], stride[3], dilation[3], begin[3], end[3];  // of the last `rank` dimensions; 1 or 0 before
};

struct ConvAttributes {
  Window window;
  int64_t channels, filters, group, transposed, in_blocked, out_blocked;
  int64_t output_padding[3];
  int32_t activation;
  float x, y;
  int32_t unused;
};

struct PoolAttributes {
  Window window;
  int64_t average, count_padding, blocked;
};

// Sizes of the image in three dimensions; false if the rank is not the window's.
bool image_of(const DLTensor &x, const Window &w, bool blocked, int64_t *dims) {
  const int extra = blocked ? 1 : 0;
  if (x.ndim != w.rank + 2 + extra) return false;
  for (int i = 0; i < 3; i++) dims[i] = i < 3 - w.rank ? 1 : x.shape[2 + i - (3 - w.rank)];
  return true;
}

// What the padding is, and the size that comes out; -1: the window does not fit.
int64_t slide(const Window &w, int i, int64_t size, int64_t *begin, int64_t *end) {
  const int64_t span = (w.kernel[i] - 1) * w.dilation[i] + 1, stride = w.stride[i];
  *begin = w.begin[i], *end = w.end[i];
  if (w.auto_pad == PAD_VALID) *begin = *end = 0;
  if (w.auto_pad == PAD_SAME_UPPER || w.auto_pad == PAD_SAME_LOWER) {
    const int64_t out = ceil_div(size, stride), all = max_of<int64_t>((out - 1) * stride + span - size, 0);
    *begin = w.auto_pad == PAD_SAME_UPPER ? all / 2 : all - all / 2;
    *end = all - *begin;
  }
  const int64_t room = size + *begin + *end - span;
  if (room < 0) return -1;
  int64_t out = (w.ceil ? ceil_div(room, stride) : room / stride) + 1;
  if (w.ceil && (out - 1) * stride >= size + *begin) out--;  // a window that would begin in the padding at the end
  return out;
}

// The shape of a result in either layout; its rank.
int result_shape(const Window &w, int64_t n, int64_t channels, const int64_t *image, bool blocked, int64_t *shape) {
  int rank = 0;
  shape[rank++] = n;
  shape[rank++] = blocked ? ceil_div(channels, BLOCK_CHANNELS) : channels;
  for (int i = 3 - int(w.rank); i < 3; i++) shape[rank++] = image[i];
  if (blocked) shape[rank++] = BLOCK_CHANNELS;
  return rank;
}

void set_geometry(const ConvAttributes &how, EpkConv &c) {
  c.channels = how.channels, c.filters = how.filters, c.group = how.group;
  for (int i = 0; i < 3; i++) {
    c.kernel[i] = how.window.kernel[i], c.stride[i] = how.window.stride[i], c.dilation[i] = how.window.dilation[i];
    c.pad[i] = how.window.begin[i];
    c.in[i] = c.out[i] = 1;
  }
  c.transposed = int32_t(how.transposed);
  c.n = 1;
  c.epilogue.scale = 1;
}

}  // namespace

// Inputs: weights as ONNX has them, bias (may be absent). Output: bytes.
EPK_OPERATOR(conv_pack) {
  EpkConv c{};
  set_geometry(*static_cast<const ConvAttributes *>(attributes), c);
  int64_t size = EPK(conv_packed_size_f32)(&c);
  auto *packed = static_cast<float *>(ctx->output(ctx, 0, 1, &size));
  if (!packed) return EPK_FAILED;
  Threads threads(ctx);
  const auto *bias = n_in > 1 && !absent(in[1]) ? static_cast<const float *>(in[1].data) : nullptr;
  EPK(conv_pack_f32)(&c, static_cast<const float *>(in[0].data), bias, packed, &threads);
  return EPK_OK;
}

// Inputs: image, weights and bias packed, residual in the layout of the output (may be absent).
EPK_OPERATOR(conv) {
  const auto &how = *static_cast<const ConvAttributes *>(attributes);
  const DLTensor &x = in[0];
  EpkConv c{};
  set_geometry(how, c);
  if (!image_of(x, how.window, how.in_blocked, c.in)) return epk_fail(ctx, EPK_INVALID, "the input X %s does not have %d spatial dimensions", ShapeText(x).text, int(how.window.rank));
  const int64_t held = how.in_blocked ? ceil_div(how.channels, BLOCK_CHANNELS) : how.channels;
  if (x.shape[1] != held) return epk_fail(ctx, EPK_INVALID, "the input X %s does not have the %lld channels of the weights", ShapeText(x).text, (long long)how.channels);
  c.n = x.shape[0];
  for (int i = 0; i < 3; i++) {
    if (how.transposed) {
      const int64_t span = (c.kernel[i] - 1) * c.dilation[i] + 1;
      c.out[i] = c.stride[i] * (c.in[i] - 1) + how.output_padding[i] + span - how.window.begin[i] - how.window.end[i];
      if (c.in[i] == 0 || c.out[i] < 0) return epk_fail(ctx, EPK_INVALID, "the padding leaves nothing of %s", ShapeText(x).text);
    } else {
      int64_t end;
      c.out[i] = slide(how.window, i, c.in[i], &c.pad[i], &end);
      if (c.out[i] < 0) return epk_fail(ctx, EPK_INVALID, "the kernel is larger than the padded input X %s", ShapeText(x).text);
    }
  }
  c.in_blocked = int32_t(how.in_blocked), c.out_blocked = int32_t(how.out_blocked);
  c.epilogue.activation = how.activation, c.epilogue.alpha = how.x, c.epilogue.beta = how.y;
  int64_t shape[MAX_RANK];
  const int rank = result_shape(how.window, c.n, c.filters, c.out, how.out_blocked, shape);
  auto *y = static_cast<float *>(ctx->output(ctx, 0, rank, shape));
  if (!y) return EPK_FAILED;
  if (epk_size(&out[0]) == 0) return EPK_OK;
  if (n_in > 2 && !absent(in[2])) {
    if (epk_size(&in[2]) != epk_size(&out[0])) return epk_fail(ctx, EPK_INVALID, "the shapes %s and %s differ", ShapeText(in[2]).text, ShapeText(out[0]).text);
    c.epilogue.add = static_cast<const float *>(in[2].data);
  }
  const int64_t needed = EPK(conv_scratch_f32)(&c, ctx->threads);
  if (needed < 0) return epk_fail(ctx, EPK_OUT_OF_MEMORY, "the padding makes an image larger than any memory of X %s", ShapeText(x).text);
  void *scratch = ctx->scratch(ctx, size_t(needed));
  if (!scratch) return EPK_FAILED;
  Threads threads(ctx);
  EPK(conv_f32)(&c, static_cast<const float *>(x.data), static_cast<const float *>(in[1].data), y, scratch, &threads);
  return EPK_OK;
}

EPK_OPERATOR(pool) {
  const auto &how = *static_cast<const PoolAttributes *>(attributes);
  const DLTensor &x = in[0];
  EpkPool p{};
  if (!image_of(x, how.window, how.blocked, p.in)) return epk_fail(ctx, EPK_INVALID, "the input X %s does not have %d spatial dimensions", ShapeText(x).text, int(how.window.rank));
  p.n = x.shape[0];
  p.channels = x.shape[1] * (how.blocked ? BLOCK_CHANNELS : 1);
  for (int i = 0; i < 3; i++) {
    p.kernel[i] = how.window.kernel[i], p.stride[i] = how.window.stride[i], p.dilation[i] = how.window.dilation[i];
    p.out[i] = slide(how.window, i, p.in[i], &p.pad[i], &p.pad_end[i]);
    if (p.out[i] <= 0) return epk_fail(ctx, EPK_INVALID, "the window is larger than the padded input X %s", ShapeText(x).text);
  }
  p.average = int32_t(how.average), p.count_padding = int32_t(how.count_padding), p.blocked = int32_t(how.blocked);
  int64_t shape[MAX_RANK];
  const int rank = result_shape(how.window, p.n, p.channels, p.out, how.blocked, shape);
  auto *y = static_cast<float *>(ctx->output(ctx, 0, rank, shape));
  if (!y) return EPK_FAILED;
  if (epk_size(&out[0]) == 0) return EPK_OK;
  Threads threads(ctx);
  EPK(pool_f32)(&p, static_cast<const float *>(x.data), y, &threads);
  return EPK_OK;
}

// Attributes: average, blocked (then all channels are real, and the result is planar).
EPK_OPERATOR(global_pool) {
  const auto *how = static_cast<const int64_t *>(attributes);
  const DLTensor &x = in[0];
  if (x.ndim < (how[1] ? 4 : 3)) return epk_fail(ctx, EPK_INVALID, "the input X %s has no spatial dimension", ShapeText(x).text);
  int64_t shape[MAX_RANK];
  const int rank = how[1] ? x.ndim - 1 : x.ndim;
  shape[0] = x.shape[0], shape[1] = x.shape[1] * (how[1] ? BLOCK_CHANNELS : 1);
  for (int i = 2; i < rank; i++) shape[i] = 1;
  auto *y = static_cast<float *>(ctx->output(ctx, 0, rank, shape));
  if (!y) return EPK_FAILED;
  if (epk_size(&out[0]) == 0) return EPK_OK;
  const int64_t pixels = product(x.shape + 2, rank - 2);
  if (pixels == 0) return epk_fail(ctx, EPK_UNSUPPORTED, "an image without pixels");
  Threads threads(ctx);
  EPK(global_pool_f32)(static_cast<const float *>(x.data), y, shape[0], shape[1], pixels, int(how[0]), int(how[1]), &threads);
  return EPK_OK;
}

EPK_OPERATOR(to_blocked) {
  const DLTensor &x = in[0];
  if (x.ndim < 3 || x.ndim >= MAX_RANK) return epk_fail(ctx, EPK_INVALID, "no image: %s", ShapeText(x).text);
  int64_t shape[MAX_RANK];
  for (int i = 0; i < x.ndim; i++) shape[i] = x.shape[i];
  shape[1] = ceil_div(x.shape[1], BLOCK_CHANNELS);
  shape[x.ndim] = BLOCK_CHANNELS;
  auto *y = static_cast<float *>(ctx->output(ctx, 0, x.ndim + 1, shape));
  if (!y) return EPK_FAILED;
  Threads threads(ctx);
  EPK(to_blocked_f32)(static_cast<const float *>(x.data), x.shape[0], x.shape[1], product(x.shape + 2, x.ndim - 2), y, &threads);
  return EPK_OK;
}

// Attributes: channels.
EPK_OPERATOR(from_blocked) {
  const int64_t channels = *static_cast<const int64_t *>(attributes);
  const DLTensor &x = in[0];
  if (x.ndim < 4 || x.shape[1] != ceil_div(channels, BLOCK_CHANNELS)) return epk_fail(ctx, EPK_INVALID, "no blocked image: %s", ShapeText(x).text);
  int64_t shape[MAX_RANK];
  for (int i = 0; i + 1 < x.ndim; i++) shape[i] = x.shape[i];
  shape[1] = channels;
  auto *y = static_cast<float *>(ctx->output(ctx, 0, x.ndim - 1, shape));
  if (!y) return EPK_FAILED;
  Threads threads(ctx);
  EPK(from_blocked_f32)(static_cast<const float *>(x.data), x.shape[0], channels, product(x.shape + 2, x.ndim - 3), y, &threads);
  return EPK_OK;
}

}  // namespace EPK_NS
