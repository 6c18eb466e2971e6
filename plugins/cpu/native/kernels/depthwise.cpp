#include "activate.h"
#include "conv_plan.h"
#include "denormal.h"

namespace EPK_NS {
namespace {

constexpr int PIXELS = 8;  // outputs at once: as many accumulators

struct Depthwise {
  const EpkConv &c;
  const float *x, *weights, *bias;  // of one block of channels
  float *out;
  const float *add;

  // Taps [first, end) of a dimension fall inside the image for output o.
  void inside(int d, int64_t o, int64_t &first, int64_t &end) const {
    const int64_t start = o * c.stride[d] - c.pad[d];
    first = start < 0 ? ceil_div(-start, c.dilation[d]) : 0;
    end = min_of(c.kernel[d], ceil_div(c.in[d] - start, c.dilation[d]));
    if (end < first) end = first;
  }

  // N outputs of a row, all with the taps [x0, x1) of the row inside.
  template <int N> EPK_INLINE void pixels(int64_t z, int64_t y, int64_t column, int64_t x0, int64_t x1) const {
    int64_t z0, z1, y0, y1;
    inside(0, z, z0, z1);
    inside(1, y, y0, y1);
    const int64_t step = c.stride[2] * BLOCK;
    const bool cheap = is_cheap(c.epilogue.activation);
    for (int lane = 0; lane < BLOCK; lane += VL) {
      vf acc[N];
#pragma GCC unroll 8
      for (int i = 0; i < N; i++) acc[i] = vf{};
      for (int64_t kz = z0; kz < z1; kz++)
        for (int64_t ky = y0; ky < y1; ky++) {
          const int64_t iz = z * c.stride[0] - c.pad[0] + kz * c.dilation[0];
          const int64_t iy = y * c.stride[1] - c.pad[1] + ky * c.dilation[1];
          const float *row = x + lane + ((iz * c.in[1] + iy) * c.in[2] + column * c.stride[2] - c.pad[2]) * BLOCK;
          const float *w = weights + lane + (kz * c.kernel[1] + ky) * c.kernel[2] * BLOCK;
          for (int64_t kx = x0; kx < x1; kx++) {
            const float *from = row + kx * c.dilation[2] * BLOCK;
            const vf weight = load(w + kx * BLOCK);
#pragma GCC unroll 8
            for (int i = 0; i < N; i++) acc[i] = fma_of(load(from + i * step), weight, acc[i]);
          }
        }
      const int64_t place = ((z * c.out[1] + y) * c.out[2] + column) * BLOCK + lane;
      const vf start = load(bias + lane);
      float low, high;
      clip_bounds(c.epilogue, low, high);
#pragma GCC unroll 8
      for (int i = 0; i < N; i++) {
        vf value = acc[i] * c.epilogue.scale + start;
        if (add) value += load(add + place + i * BLOCK);
        store(out + place + i * BLOCK, vmin(splat(high), vmax(splat(low), value)));
      }
      if (!cheap) activate_all(c.epilogue, out + place, N, BLOCK, 1, BLOCK);
    }
  }

  void row(int64_t z, int64_t y) const {
    int64_t column = 0, x0, x1;
    while (column < c.out[2]) {
      inside(2, column, x0, x1);
      const bool whole = x0 == 0 && x1 == c.kernel[2];
      if (whole && whole_until(column + PIXELS)) {
        pixels<PIXELS>(z, y, column, x0, x1);
        column += PIXELS;
      } else if (whole && whole_until(column + PIXELS / 2)) {
        pixels<PIXELS / 2>(z, y, column, x0, x1);
        column += PIXELS / 2;
      } else {
        pixels<1>(z, y, column, x0, x1);
        column++;
      }
    }
  }

  // Whether the outputs before `end` have all taps of the row inside, given that an earlier one has.
  bool whole_until(int64_t end) const {
    return end <= c.out[2] && (end - 1) * c.stride[2] - c.pad[2] + (c.kernel[2] - 1) * c.dilation[2] < c.in[2];
  }
};

}  // namespace

void depthwise(const ConvPlan &plan, const float *x, const float *packed, float *out, Parallel *p) {
  const EpkConv &c = plan.c;
  const int64_t blocks = ceil_div(c.channels, BLOCK), rows = c.out[0] * c.out[1];
  const float *weights = packed + blocks * BLOCK;
  parallel_for(p, blocks * rows, max_of<int64_t>(1, 512 / c.out[2]), [&](int64_t begin, int64_t end, int) {
    const FlushDenormals flush;
    for (int64_t i = begin; i < end; i++) {
      const int64_t block = i / rows, out_block = block * plan.out_pixels() * BLOCK;
      const float *add = c.epilogue.add ? c.epilogue.add + out_block : nullptr;
      const Depthwise d{c, x + block * plan.in_pixels() * BLOCK, weights + block * plan.taps() * BLOCK,
                        packed + block * BLOCK, out + out_block, add};
      d.row(i % rows / c.out[1], i % c.out[1]);
    }
  });
}

}  // namespace EPK_NS
