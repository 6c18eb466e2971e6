// Windows that slide over images: what convolutions and pooling share.
#pragma once
#include "../kernels/conv.h"
#include "ops.h"

namespace EPK_NS {

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
  int32_t winograd;  // of EpkConv
  int32_t narrow;  // 0: float32; else 1 + the EpkForm16 of the weights
};

// Sizes of the image in three dimensions; false if the rank is not the window's.
inline bool image_of(const DLTensor &x, const Window &w, bool blocked, int64_t *dims) {
  const int extra = blocked ? 1 : 0;
  if (x.ndim != w.rank + 2 + extra) return false;
  for (int i = 0; i < 3; i++) dims[i] = i < 3 - w.rank ? 1 : x.shape[2 + i - (3 - w.rank)];
  return true;
}

// What the padding is, and the size that comes out; -1: the window does not fit.
inline int64_t slide(const Window &w, int i, int64_t size, int64_t *begin, int64_t *end) {
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
inline int result_shape(const Window &w, int64_t n, int64_t channels, const int64_t *image, bool blocked, int64_t *shape) {
  int rank = 0;
  shape[rank++] = n;
  shape[rank++] = blocked ? ceil_div(channels, BLOCK_CHANNELS) : channels;
  for (int i = 3 - int(w.rank); i < 3; i++) shape[rank++] = image[i];
  if (blocked) shape[rank++] = BLOCK_CHANNELS;
  return rank;
}

inline void set_geometry(const ConvAttributes &how, EpkConv &c) {
  c.channels = how.channels, c.filters = how.filters, c.group = how.group;
  for (int i = 0; i < 3; i++) {
    c.kernel[i] = how.window.kernel[i], c.stride[i] = how.window.stride[i], c.dilation[i] = how.window.dilation[i];
    c.pad[i] = how.window.begin[i];
    c.in[i] = c.out[i] = 1;
  }
  c.transposed = int32_t(how.transposed);
  c.winograd = how.winograd;
  c.n = 1;
  c.epilogue.scale = 1;
}

// Sizes of the image and of the result for an input; EPK_OK, or why not.
inline int set_image(epk_context *ctx, const ConvAttributes &how, const DLTensor &x, EpkConv &c) {
  if (!image_of(x, how.window, how.in_blocked, c.in)) {
    return epk_fail(ctx, EPK_INVALID, "the input X %s does not have %d spatial dimensions", ShapeText(x).text, int(how.window.rank));
  }
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
  return EPK_OK;
}

// The same convolution with its last dimensions in the place of those of size 1 behind them: tiles go along the last.
inline void drop_trailing(EpkConv &c) {
  if (c.transposed) return;
  for (int i = 0; i < 2 && c.in[2] == 1 && c.out[2] == 1 && c.kernel[2] == 1 && c.pad[2] == 0; i++) {
    int64_t *const all[] = {c.in, c.out, c.kernel, c.stride, c.dilation, c.pad};
    for (int64_t *of : all) {
      of[2] = of[1], of[1] = of[0];
      of[0] = of == c.pad ? 0 : 1;
    }
  }
}

}  // namespace EPK_NS
