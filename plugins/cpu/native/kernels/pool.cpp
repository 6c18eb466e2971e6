#include "pool.h"

#include "tile.h"

namespace EPK_NS {
namespace {

struct Range {
  int64_t first, end;
};

// Taps of output o that fall on [-before, size + behind).
Range inside(const EpkPool &c, int d, int64_t o, int64_t before, int64_t behind) {
  const int64_t start = o * c.stride[d] - c.pad[d] + before, size = c.in[d] + before + behind;
  const int64_t first = start < 0 ? ceil_div(-start, c.dilation[d]) : 0;
  const int64_t end = size > start ? min_of(c.kernel[d], ceil_div(size - start, c.dilation[d])) : 0;
  return {first, max_of(first, end)};
}

// What an average divides by, in one dimension.
int64_t divisor(const EpkPool &c, int d, int64_t o) {
  const Range r = c.count_padding ? inside(c, d, o, c.pad[d], c.pad_end[d]) : inside(c, d, o, 0, 0);
  return r.end - r.first;
}

// Outputs [first, end) for which tap k of a row is inside the image.
Range outputs_of(const EpkPool &c, int64_t k) {
  const int64_t shift = k * c.dilation[2] - c.pad[2], last = c.in[2] - 1 - shift;
  const int64_t first = shift < 0 ? ceil_div(-shift, c.stride[2]) : 0;
  return {first, last < 0 ? first : max_of(first, min_of(c.out[2], last / c.stride[2] + 1))};
}

// One row of outputs of one channel, or of one block of channels (unit 1 or BLOCK).
template <int UNIT> void pool_row(const EpkPool &c, const float *x, int64_t oz, int64_t oy, float *out) {
  const int64_t width = c.out[2] * UNIT;
  const float start = c.average ? 0.0f : -__builtin_inff();
  for (int64_t i = 0; i < width; i++) out[i] = start;
  const Range z = inside(c, 0, oz, 0, 0), y = inside(c, 1, oy, 0, 0);
  for (int64_t kz = z.first; kz < z.end; kz++)
    for (int64_t ky = y.first; ky < y.end; ky++) {
      const int64_t iz = oz * c.stride[0] - c.pad[0] + kz * c.dilation[0];
      const int64_t iy = oy * c.stride[1] - c.pad[1] + ky * c.dilation[1];
      const float *row = x + (iz * c.in[1] + iy) * c.in[2] * UNIT;
      for (int64_t kx = 0; kx < c.kernel[2]; kx++) {
        const Range o = outputs_of(c, kx);
        const float *from = row + (kx * c.dilation[2] - c.pad[2]) * UNIT;
        const int64_t step = c.stride[2] * UNIT;
        if (UNIT == 1) {
          if (c.average)
            for (int64_t i = o.first; i < o.end; i++) out[i] += from[i * step];
          else
            for (int64_t i = o.first; i < o.end; i++) out[i] = from[i * step] > out[i] ? from[i * step] : out[i];
          continue;
        }
        for (int64_t i = o.first; i < o.end; i++)
#pragma GCC unroll 4
          for (int lane = 0; lane < UNIT; lane += VL) {
            float *to = out + i * UNIT + lane;
            const vf value = load(from + i * step + lane);
            store(to, c.average ? load(to) + value : vmax(value, load(to)));
          }
      }
    }
  if (!c.average) return;
  const int64_t others = divisor(c, 0, oz) * divisor(c, 1, oy);
  for (int64_t i = 0; i < c.out[2]; i++) {
    const float factor = 1.0f / (float)(others * divisor(c, 2, i));
    for (int lane = 0; lane < UNIT; lane++) out[i * UNIT + lane] *= factor;
  }
}

}  // namespace
}  // namespace EPK_NS

using namespace EPK_NS;

extern "C" void EPK(pool_f32)(const EpkPool *pool, const float *x, float *out, Parallel *p) {
  const EpkPool &c = *pool;
  const int64_t unit = c.blocked ? BLOCK : 1, planes = c.n * ceil_div(c.channels, unit), rows = c.out[0] * c.out[1];
  const int64_t in_size = c.in[0] * c.in[1] * c.in[2] * unit, out_row = c.out[2] * unit;
  if (out_row <= 0) return;
  parallel_for(p, planes * rows, max_of<int64_t>(1, 4096 / out_row), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      const float *plane = x + i / rows * in_size;
      const int64_t z = i % rows / c.out[1], y = i % c.out[1];
      if (c.blocked) pool_row<BLOCK>(c, plane, z, y, out + i * out_row);
      else pool_row<1>(c, plane, z, y, out + i * out_row);
    }
  });
}

extern "C" void EPK(global_pool_f32)(const float *x, float *out, int64_t n, int64_t c, int64_t pixels, int average,
                                     int blocked, Parallel *p) {
  const int64_t planes = n * (blocked ? ceil_div(c, BLOCK) : c);
  const float start = average ? 0.0f : -__builtin_inff(), factor = average ? 1.0f / (float)pixels : 1.0f;
  parallel_for(p, planes, max_of<int64_t>(1, 8192 / max_of<int64_t>(pixels, 1)), [=](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      if (blocked) {
        for (int lane = 0; lane < BLOCK; lane += VL) {
          vf total = splat(start);
          for (int64_t j = 0; j < pixels; j++) {
            const vf value = load(x + (i * pixels + j) * BLOCK + lane);
            total = average ? total + value : vmax(value, total);
          }
          store(out + i * BLOCK + lane, total * factor);
        }
        continue;
      }
      vf total = splat(start);
      float rest = start;
      int64_t j = 0;
      for (; j + VL <= pixels; j += VL) {
        const vf value = load(x + i * pixels + j);
        total = average ? total + value : vmax(value, total);
      }
      for (; j < pixels; j++) {
        const float value = x[i * pixels + j];
        rest = average ? rest + value : value > rest ? value : rest;
      }
      for (int lane = 0; lane < VL; lane++)
        rest = average ? rest + total[lane] : total[lane] > rest ? total[lane] : rest;
      out[i] = rest * factor;
    }
  });
}
