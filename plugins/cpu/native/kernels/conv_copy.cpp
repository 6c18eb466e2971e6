#include "conv_copy.h"

#include "activate.h"
#include "transpose.h"

namespace EPK_NS {
namespace {

constexpr int64_t STRIP = 256 << 10;     // bytes of a strip, about
constexpr int64_t WEIGHTS = 768 << 10;   // bytes of weights that stay in L2 beside it

// One padded row of one piece of the channels, of row y of plane z of the image, either of which may lie outside.
void copy_row(const ConvPlan &plan, const float *x, int64_t piece, int64_t z, int64_t y, float *row) {
  const EpkConv &c = plan.c;
  const int64_t width = plan.padded[2], pixels = plan.in_pixels();
  if (z < 0 || z >= c.in[0] || y < 0 || y >= c.in[1]) {
    memset(row, 0, (size_t)(width * plan.unit) * 4);
    return;
  }
  const int64_t pixel = (z * c.in[1] + y) * c.in[2];
  memset(row, 0, (size_t)(plan.low[2] * plan.unit) * 4);
  row += plan.low[2] * plan.unit;
  memset(row + c.in[2] * plan.unit, 0, (size_t)((width - plan.low[2] - c.in[2]) * plan.unit) * 4);
  if (plan.planar) {
    if (!c.in_blocked) {
      memcpy(row, x + piece * pixels + pixel, (size_t)c.in[2] * 4);
    } else {
      const float *from = x + (piece / BLOCK * pixels + pixel) * BLOCK + piece % BLOCK;
      for (int64_t j = 0; j < c.in[2]; j++) row[j] = from[j * BLOCK];
    }
  } else if (c.in_blocked) {
    memcpy(row, x + (piece * pixels + pixel) * BLOCK, (size_t)(c.in[2] * BLOCK) * 4);
  } else {
    const int64_t group = piece / plan.blocks, channel = piece % plan.blocks * BLOCK;
    const int64_t real = min_of<int64_t>(BLOCK, plan.channels - channel);
    if (real < BLOCK) memset(row, 0, (size_t)(c.in[2] * BLOCK) * 4);
    transpose_matrix(x + (group * plan.channels + channel) * pixels + pixel, pixels, real, c.in[2], row, BLOCK);
  }
}

}  // namespace

// Row by row, as the convolution goes over it.
void copy_image(const ConvPlan &plan, const float *x, float *to, Parallel *p) {
  const int64_t *size = plan.padded, *low = plan.low, plane = size[0] * size[1] * size[2];
  const int64_t pieces = plan.c.group * plan.blocks, rows = size[0] * size[1];
  const int64_t grain = max_of<int64_t>(1, 16384 / max_of<int64_t>(size[2] * plan.unit, 1));
  parallel_for(p, pieces * rows, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t piece = i % pieces, index = i / pieces;
      float *row = to + (piece * plane + index * size[2]) * plan.unit;
      copy_row(plan, x, piece, index / size[1] - low[0], index % size[1] - low[1], row);
    }
  });
}

Strips::Strips(const ConvPlan &plan, int threads) : rows(0), height(0), size(0) {
  const EpkConv &c = plan.c;
  const int64_t row_size = plan.blocks * plan.unit * plan.padded[2], out_rows = c.out[1];
  if (!plan.copy_in || c.transposed || c.group > 1 || plan.winograd || plan.depthwise) return;
  if (plan.padded[0] != 1 || out_rows < 2 || plan.in_size * 4 <= STRIP) return;
  if (plan.panels * plan.panel_size(0) * 4 > WEIGHTS) return;
  const int64_t span = (c.kernel[1] - 1) * c.dilation[1] + 1, step = c.stride[1];
  const int64_t fit = max_of<int64_t>(1, (STRIP / 4 / row_size - span) / step + 1);
  const int64_t least = ceil_div(4 * max_of<int64_t>(span - step, 0), step);  // else too much would be copied twice
  const int64_t share = threads == 1 ? out_rows : ceil_div(out_rows, (int64_t)4 * threads);
  rows = min_of(out_rows, round_up(max_of(min_of(fit, share), least), 2));
  height = (rows - 1) * step + span;
  size = round_up(row_size * height, BLOCK);
  if (size * threads >= plan.in_size) rows = 0;
}

void copy_strip(const ConvPlan &plan, const Strips &strips, const float *x, int64_t first, int64_t end, float *to) {
  for (int64_t piece = 0; piece < plan.blocks; piece++)
    for (int64_t y = first; y < end; y++)
      copy_row(plan, x, piece, 0, y - plan.low[1], to + (piece * strips.height + y - first) * plan.padded[2] * plan.unit);
}

void copy_result(const ConvPlan &plan, const float *from, const float *bias, float *out, int64_t image, Parallel *p) {
  const EpkConv &c = plan.c;
  const int64_t pixels = plan.out_pixels();
  constexpr int64_t RUN = 256;  // pixels at once: they stay in L1 between reordering and epilogue
  const int64_t runs = ceil_div(pixels, RUN), blocks = plan.padded_filters / BLOCK;
  const bool blocked = c.out_blocked;
  const int64_t image_size = (blocked ? round_up(c.filters, BLOCK) : c.filters) * pixels;
  EpkEpilogue e = c.epilogue;
  e.bias = nullptr;
  out += image * image_size;
  if (blocked && c.filters % BLOCK != 0)  // the lanes behind the last filter
    memset(out + c.filters / BLOCK * pixels * BLOCK, 0, (size_t)(pixels * BLOCK) * 4);
  if (e.add) e.add += image * image_size;
  parallel_for(p, c.group * blocks * runs, 4, [&](int64_t begin, int64_t end, int) {
    alignas(64) float strip[BLOCK * RUN];
    for (int64_t i = begin; i < end; i++) {
      const int64_t block = i / runs, pixel = i % runs * RUN, count = min_of(RUN, pixels - pixel);
      const int64_t group = block / blocks, filter = block % blocks * BLOCK;
      const int64_t real = min_of<int64_t>(BLOCK, plan.filters - filter), first = group * plan.filters + filter;
      const float *source = from + (block * pixels + pixel) * BLOCK;
      if (!blocked) transpose_matrix(source, BLOCK, count, real, strip, RUN);
      for (int64_t f = 0; f < real; f++) {
        const int64_t index = first + f;
        EpkEpilogue own = e;
        own.row_bias = bias + group * plan.panels * PANEL + filter + f;
        if (!blocked) {
          own.add = e.add ? e.add + index * pixels : nullptr;
          finish_row(own, strip + f * RUN, out + index * pixels + pixel, 0, pixel, count);
          continue;
        }
        float *to = out + (index / BLOCK * pixels + pixel) * BLOCK + index % BLOCK;
        const float *add = e.add ? e.add + (to - out) : nullptr;
        own.add = add ? strip + RUN : nullptr;
        for (int64_t j = 0; j < count; j++) strip[j] = source[j * BLOCK + f];
        for (int64_t j = 0; add && j < count; j++) strip[RUN + j] = add[j * BLOCK];
        finish_row(own, strip, strip, 0, 0, count);
        for (int64_t j = 0; j < count; j++) to[j * BLOCK] = strip[j];
      }
    }
  });
}

}  // namespace EPK_NS
