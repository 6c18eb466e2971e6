#include "activate.h"
#include "conv_plan.h"
#include "denormal.h"

namespace EPK_NS {
namespace {

constexpr int PIXELS = 8;  // outputs at once: as many accumulators

// Taps of one dimension.
struct Taps {
  int64_t first, end;
};

// Those that fall inside the image for output o of dimension d.
Taps inside(const EpkConv &c, int d, int64_t o) {
  const int64_t start = o * c.stride[d] - c.pad[d];
  const int64_t first = start < 0 ? ceil_div(-start, c.dilation[d]) : 0;
  return {first, max_of(first, min_of(c.kernel[d], ceil_div(c.in[d] - start, c.dilation[d])))};
}

// A row of outputs.
struct Row {
  int64_t z, y;
  Taps of_z, of_y;
};

// One block of channels. KX is the taps of a row where known at compile time, with dilation 1; so is STEP the stride.
// Neighbours' loads of the same pixel then become one.
template <int KX, int STEP> struct Depthwise {
  const EpkConv &c;
  const float *x, *weights, *bias;  // of one block of channels
  float *out;
  const float *add;
  int64_t left, right;  // outputs [left, right) of a row have all of their taps inside the image

  // One image row's share of N neighbouring outputs.
  template <int N> EPK_INLINE void taps(const float *from, const float *w, Taps of_x, vf (&acc)[N]) const {
    const int64_t step = (STEP ? STEP : c.stride[2]) * BLOCK, spread = (KX ? 1 : c.dilation[2]) * BLOCK;
    if (KX) of_x = {0, KX};
#pragma GCC unroll 7
    for (int64_t k = of_x.first; k < of_x.end; k++) {
      const vf weight = load(w + k * BLOCK);
#pragma GCC unroll 8
      for (int i = 0; i < N; i++) acc[i] = fma_of(load(from + k * spread + i * step), weight, acc[i]);
    }
  }

  template <int N> void pixels(const Row &row, int64_t column, Taps of_x) const {
    const EpkEpilogue &e = c.epilogue;
    const int64_t place = ((row.z * c.out[1] + row.y) * c.out[2] + column) * BLOCK;
    const int64_t z = row.z * c.stride[0] - c.pad[0], y = row.y * c.stride[1] - c.pad[1];
    const float *corner = x + (column * c.stride[2] - c.pad[2]) * BLOCK;
    float low, high;
    clip_bounds(e, low, high);
    for (int lane = 0; lane < BLOCK; lane += VL) {
      vf acc[N];
#pragma GCC unroll 8
      for (int i = 0; i < N; i++) acc[i] = vf{};
      for (int64_t kz = row.of_z.first; kz < row.of_z.end; kz++)
        for (int64_t ky = row.of_y.first; ky < row.of_y.end; ky++)
          taps<N>(corner + lane + ((z + kz * c.dilation[0]) * c.in[1] + y + ky * c.dilation[1]) * c.in[2] * BLOCK,
                  weights + lane + (kz * c.kernel[1] + ky) * c.kernel[2] * BLOCK, of_x, acc);
      const vf start = load(bias + lane);
#pragma GCC unroll 8
      for (int i = 0; i < N; i++) {
        vf value = acc[i] * e.scale + start;
        if (add) value += load(add + place + i * BLOCK + lane);
        store(out + place + i * BLOCK + lane, vmin(splat(high), vmax(splat(low), value)));
      }
    }
    if (!is_cheap(e.activation)) activate_all(e, out + place, N, BLOCK, BLOCK / VL, VL);
  }

  void border(const Row &row, int64_t first, int64_t end) const {
    const Depthwise<0, 0> any{c, x, weights, bias, out, add, left, right};
    for (int64_t column = first; column < end; column++)
      any.template pixels<1>(row, column, inside(c, 2, column));
  }

  void run(int64_t z, int64_t y) const {
    const Row row{z, y, inside(c, 0, z), inside(c, 1, y)};
    const Taps all{0, c.kernel[2]};
    int64_t column = left;
    border(row, 0, left);
    for (; column + PIXELS <= right; column += PIXELS) pixels<PIXELS>(row, column, all);
    if (column + 4 <= right) pixels<4>(row, column, all), column += 4;
    if (column + 2 <= right) pixels<2>(row, column, all), column += 2;
    if (column < right) pixels<1>(row, column, all);
    border(row, right, c.out[2]);
  }
};

template <int KX, int STEP>
void run_rows(const ConvPlan &plan, const float *x, const float *packed, float *out, int64_t block, int64_t first, int64_t end) {
  const EpkConv &c = plan.c;
  const int64_t place = block * plan.out_pixels() * BLOCK, span = (c.kernel[2] - 1) * c.dilation[2];
  const int64_t left = min_of(c.out[2], ceil_div(c.pad[2], c.stride[2])), last = c.in[2] - 1 - span + c.pad[2];
  const int64_t right = last < 0 ? left : max_of(left, min_of(c.out[2], last / c.stride[2] + 1));
  const float *weights = packed + round_up(c.channels, BLOCK) + block * plan.taps() * BLOCK;
  const Depthwise<KX, STEP> d{c, x + block * plan.in_pixels() * BLOCK, weights, packed + block * BLOCK, out + place,
                              c.epilogue.add ? c.epilogue.add + place : nullptr, left, right};
  for (int64_t r = first; r < end; r++) d.run(r / c.out[1], r % c.out[1]);
}

typedef void (*RunRows)(const ConvPlan &, const float *, const float *, float *, int64_t, int64_t, int64_t);

RunRows rows_for(const EpkConv &c) {
  const int64_t k = c.dilation[2] == 1 ? c.kernel[2] : 0, step = c.stride[2];
  if (k == 3) return step == 1 ? run_rows<3, 1> : step == 2 ? run_rows<3, 2> : run_rows<0, 0>;
  if (k == 5) return step == 1 ? run_rows<5, 1> : step == 2 ? run_rows<5, 2> : run_rows<0, 0>;
  return k == 7 && step == 1 ? run_rows<7, 1> : run_rows<0, 0>;
}

}  // namespace

void depthwise(const ConvPlan &plan, const float *x, const float *packed, float *out, Parallel *p) {
  const EpkConv &c = plan.c;
  const int64_t blocks = ceil_div(c.channels, BLOCK), rows = c.out[0] * c.out[1];
  // All channels of a run of rows before the next run: as other convolutions cut their images, so that a thread finds
  // what it wrote in the step before.
  const int64_t runs = min_of<int64_t>(rows, 4 * threads_of(p));
  const int64_t grain = max_of<int64_t>(1, 512 * runs / max_of<int64_t>(plan.out_pixels(), 1));
  const RunRows run_rows = rows_for(c);
  parallel_for(p, blocks * runs, grain, [&](int64_t begin, int64_t end, int) {
    const FlushDenormals flush;
    for (int64_t i = begin; i < end; i++) {
      const int64_t run = i / blocks;
      run_rows(plan, x, packed, out, i % blocks, run * rows / runs, (run + 1) * rows / runs);
    }
  });
}

}  // namespace EPK_NS
