// Convolutions, pooling and what changes between the planar and the blocked layout (see kernels/conv.h). A blocked
// image is a tensor [n, channels / 16, spatial..., 16]; how many channels it really has, the step knows.
#include "../kernels/conv16.h"
#include "../kernels/norm.h"
#include "../kernels/pool.h"
#include "window.h"

namespace EPK_NS {
namespace {

struct PoolAttributes {
  Window window;
  int64_t average, count_padding, blocked;
};

}  // namespace

// Inputs: weights as ONNX has them, bias (may be absent). Output: bytes.
EPK_OPERATOR(conv_pack) {
  const auto &how = *static_cast<const ConvAttributes *>(attributes);
  EpkConv c{};
  set_geometry(how, c);
  int64_t size = (how.narrow ? EPK(conv16_packed_size) : EPK(conv_packed_size_f32))(&c);
  auto *packed = static_cast<float *>(ctx->output(ctx, 0, 1, &size));
  if (!packed) return EPK_FAILED;
  Threads threads(ctx);
  const auto *bias = n_in > 1 && !absent(in[1]) ? static_cast<const float *>(in[1].data) : nullptr;
  if (how.narrow) {
    auto *matrix = static_cast<float *>(ctx->scratch(ctx, size_t(EPK(conv16_matrix_size)(&c))));
    if (!matrix) return EPK_FAILED;
    EPK(conv16_pack)(&c, static_cast<const float *>(in[0].data), bias, how.narrow - 1, packed, matrix, &threads);
    return EPK_OK;
  }
  EPK(conv_pack_f32)(&c, static_cast<const float *>(in[0].data), bias, packed, &threads);
  return EPK_OK;
}

// Inputs: image, weights and bias packed, residual in the layout of the output (may be absent).
EPK_OPERATOR(conv) {
  const auto &how = *static_cast<const ConvAttributes *>(attributes);
  const DLTensor &x = in[0];
  EpkConv c{};
  set_geometry(how, c);
  if (int status = set_image(ctx, how, x, c)) return status;
  c.epilogue.activation = how.activation, c.epilogue.alpha = how.x, c.epilogue.beta = how.y;
  int64_t shape[MAX_RANK];
  const int rank = result_shape(how.window, c.n, c.filters, c.out, how.out_blocked, shape);
  auto *y = static_cast<float *>(ctx->output(ctx, 0, rank, shape));
  if (!y) return EPK_FAILED;
  if (epk_size(&out[0]) == 0) return EPK_OK;
  drop_trailing(c);
  if (n_in > 2 && !absent(in[2])) {
    if (epk_size(&in[2]) != epk_size(&out[0])) return epk_fail(ctx, EPK_INVALID, "the shapes %s and %s differ", ShapeText(in[2]).text, ShapeText(out[0]).text);
    c.epilogue.add = static_cast<const float *>(in[2].data);
  }
  const int64_t needed = (how.narrow ? EPK(conv16_scratch) : EPK(conv_scratch_f32))(&c, ctx->threads);
  if (needed < 0) return epk_fail(ctx, EPK_OUT_OF_MEMORY, "the padding makes an image larger than any memory of X %s", ShapeText(x).text);
  void *scratch = ctx->scratch(ctx, size_t(needed));
  if (!scratch) return EPK_FAILED;
  Threads threads(ctx);
  if (how.narrow) {
    if (!how.out_blocked) return EPK_INVALID;
    EPK(conv16)(&c, static_cast<const float *>(x.data), in[1].data, y, scratch, &threads);
    return EPK_OK;
  }
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

// [n][c][pixels] to [n][c / 16][pixels][16] or back, of narrow numbers; channels behind the last are 0.
template <class T>
static void reorder(epk_context *ctx, const void *from_, void *to_, int64_t n, int64_t c, int64_t pixels, bool block) {
  const T *from = static_cast<const T *>(from_);
  T *to = static_cast<T *>(to_);
  const int64_t blocks = ceil_div(c, BLOCK_CHANNELS), size = pixels * BLOCK_CHANNELS;
  in_parallel(ctx, n * blocks, max_of<int64_t>(1, 32768 / max_of<int64_t>(size, 1)), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t first = i % blocks * BLOCK_CHANNELS, real = min_of(BLOCK_CHANNELS, c - first);
      const int64_t planar = (i / blocks * c + first) * pixels;
      if (block && real < BLOCK_CHANNELS) memset(to + i * size, 0, size_t(size) * sizeof(T));
      for (int64_t p = 0; p < pixels; p++)
        for (int64_t j = 0; j < real; j++) {
          const int64_t a = planar + j * pixels + p, b = i * size + p * BLOCK_CHANNELS + j;
          if (block) to[b] = from[a];
          else to[a] = from[b];
        }
    }
  });
}

EPK_OPERATOR(to_blocked) {
  const DLTensor &x = in[0];
  if (x.ndim < 3 || x.ndim >= MAX_RANK) return epk_fail(ctx, EPK_INVALID, "no image: %s", ShapeText(x).text);
  int64_t shape[MAX_RANK];
  for (int i = 0; i < x.ndim; i++) shape[i] = x.shape[i];
  shape[1] = ceil_div(x.shape[1], BLOCK_CHANNELS);
  shape[x.ndim] = BLOCK_CHANNELS;
  void *y = ctx->output(ctx, 0, x.ndim + 1, shape);
  if (!y) return EPK_FAILED;
  const int64_t pixels = product(x.shape + 2, x.ndim - 2);
  if (x.dtype.bits < 32) {
    (x.dtype.bits == 8 ? reorder<uint8_t> : reorder<uint16_t>)(ctx, x.data, y, x.shape[0], x.shape[1], pixels, true);
    return EPK_OK;
  }
  Threads threads(ctx);
  EPK(to_blocked_f32)(static_cast<const float *>(x.data), x.shape[0], x.shape[1], pixels, static_cast<float *>(y), &threads);
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
  void *y = ctx->output(ctx, 0, x.ndim - 1, shape);
  if (!y) return EPK_FAILED;
  const int64_t pixels = product(x.shape + 2, x.ndim - 3);
  if (x.dtype.bits < 32) {
    (x.dtype.bits == 8 ? reorder<uint8_t> : reorder<uint16_t>)(ctx, x.data, y, x.shape[0], channels, pixels, false);
    return EPK_OK;
  }
  Threads threads(ctx);
  EPK(from_blocked_f32)(static_cast<const float *>(x.data), x.shape[0], channels, pixels, static_cast<float *>(y), &threads);
  return EPK_OK;
}

}  // namespace EPK_NS
