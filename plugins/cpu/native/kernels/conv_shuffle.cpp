#include "conv_shuffle.h"

#include "activate.h"
#include "tile.h"

namespace EPK_NS {
namespace {

constexpr int64_t BIAS = BLOCK;  // floats before the packed product

int64_t pixels_of(const int64_t *size) { return size[0] * size[1] * size[2]; }

// One image by the weights, [channels][filters, taps]: its result is planar.
EpkConv product_of(const EpkConv &c) {
  EpkConv g = c;
  g.n = 1, g.filters = c.filters * pixels_of(c.kernel);
  g.in[0] = g.in[1] = g.out[0] = g.out[1] = 1;
  g.in[2] = g.out[2] = pixels_of(c.in);
  for (int d = 0; d < 3; d++) g.kernel[d] = g.stride[d] = 1;
  g.out_blocked = 0, g.winograd = 0;
  g.epilogue = EpkEpilogue{1.0f, EPK_NONE, 0, 0, nullptr, nullptr, nullptr, 0};
  return g;
}

// Row `index` of the outputs of a filter, from the planes of its taps.
void gather_row(const EpkConv &c, const float *planes, int64_t index, float *row) {
  const int64_t *s = c.stride, z = index / c.out[1], y = index % c.out[1];
  memset(row, 0, (size_t)c.out[2] * 4);
  if (z / s[0] >= c.in[0] || y / s[1] >= c.in[1]) return;  // padding of the output
  for (int64_t k = 0; k < s[2]; k++) {
    const float *plane = planes + ((z % s[0] * s[1] + y % s[1]) * s[2] + k) * pixels_of(c.in);
    const float *from = plane + (z / s[0] * c.in[1] + y / s[1]) * c.in[2];
    const int64_t count = min_of(c.in[2], ceil_div(c.out[2] - k, s[2]));
    for (int64_t j = 0; j < count; j++) row[j * s[2] + k] = from[j];
  }
}

}  // namespace

bool is_shuffle(const EpkConv &c) {
  for (int d = 0; d < 3; d++)
    if (c.kernel[d] != c.stride[d] || c.pad[d] != 0 || c.dilation[d] != 1) return false;
  return c.transposed && c.group == 1 && c.filters < BLOCK && pixels_of(c.kernel) > 1;
}

int64_t shuffle_packed_size(const EpkConv &c) {
  const EpkConv g = product_of(c);
  return BIAS * 4 + EPK(conv_packed_size_f32)(&g);
}

void shuffle_pack(const EpkConv &c, const float *weights, const float *bias, float *packed, Parallel *p) {
  const EpkConv g = product_of(c);
  memset(packed, 0, BIAS * 4);
  if (bias) memcpy(packed, bias, (size_t)c.filters * 4);
  EPK(conv_pack_f32)(&g, weights, nullptr, packed + BIAS, p);
}

// The planes of one image, a row of outputs and of what is added to it for each thread, and what the product needs.
int64_t shuffle_scratch(const EpkConv &c, int threads) {
  const EpkConv g = product_of(c);
  const int64_t needed = EPK(conv_scratch_f32)(&g, threads);
  if (needed < 0 || (double)c.out[2] * threads > 1e15) return -1;
  return needed + (round_up(g.filters * g.out[2], BLOCK) + 2 * threads * round_up(c.out[2], BLOCK)) * 4;
}

void shuffle(const EpkConv &c, const float *x, const float *packed, float *out, void *scratch, Parallel *p) {
  const EpkConv g = product_of(c);
  const int64_t pixels = pixels_of(c.out), in_pixels = g.out[2], rows = c.out[0] * c.out[1], width = c.out[2];
  const int64_t x_size = (c.in_blocked ? round_up(c.channels, BLOCK) : c.channels) * in_pixels;
  const int64_t out_size = (c.out_blocked ? BLOCK : c.filters) * pixels, strip = round_up(width, BLOCK);
  float *planes = (float *)scratch, *strips = planes + round_up(g.filters * in_pixels, BLOCK);
  void *rest = strips + 2 * threads_of(p) * strip;
  const int64_t grain = max_of<int64_t>(1, 4096 / max_of<int64_t>(width, 1));
  for (int64_t n = 0; n < c.n; n++) {
    EPK(conv_f32)(&g, x + n * x_size, packed + BIAS, planes, rest, p);
    float *image = out + n * out_size;
    const float *added = c.epilogue.add ? c.epilogue.add + n * out_size : nullptr;
    if (c.out_blocked) memset(image, 0, (size_t)out_size * 4);
    parallel_for(p, c.filters * rows, grain, [&](int64_t begin, int64_t end, int thread) {
      float *own = strips + 2 * thread * strip, *own_add = own + strip;
      for (int64_t i = begin; i < end; i++) {
        const int64_t filter = i / rows;
        EpkEpilogue e = c.epilogue;
        e.bias = nullptr, e.row_bias = packed + filter;
        gather_row(c, planes + filter * pixels_of(c.kernel) * in_pixels, i % rows, own);
        if (!c.out_blocked) {
          e.add = added ? added + i * width : nullptr;
          finish_row(e, own, image + i * width, 0, 0, width);
          continue;
        }
        const int64_t place = i % rows * width * BLOCK + filter;
        e.add = added ? own_add : nullptr;
        for (int64_t j = 0; added && j < width; j++) own_add[j] = added[place + j * BLOCK];
        finish_row(e, own, own, 0, 0, width);
        for (int64_t j = 0; j < width; j++) image[place + j * BLOCK] = own[j];
      }
    });
  }
}

}  // namespace EPK_NS
