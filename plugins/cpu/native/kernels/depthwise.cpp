#include "activate.h"
#include "conv_plan.h"
#include "denormal.h"

namespace EPK_NS {
namespace {

constexpr int PIXELS = VL == 16 ? 14 : 8;  // outputs at once, at most: as many accumulators
constexpr int64_t LINES = 49;              // rows of taps of the kernels that have blocks of their own

// Taps of one dimension.
struct Taps {
  int64_t first, end;
};

// Those that fall inside the image for output o of dimension d.
Taps inside(const EpkConv &c, int d, int64_t o) {
  const int64_t start = o * c.stride[d] - c.pad[d], spread = c.dilation[d];
  const auto taps = [&](int64_t pixels) { return spread == 1 ? pixels : ceil_div(pixels, spread); };  // divisions are slow
  const int64_t first = start < 0 ? taps(-start) : 0;
  return {first, max_of(first, min_of(c.kernel[d], taps(c.in[d] - start)))};
}

// A row of taps, and the image row that it meets, from where the row's first output looks.
struct Line {
  const float *x, *weights;
};

// One block of channels.
struct Depthwise {
  const EpkConv &c;
  const float *x, *weights, *bias;
  float *out;
  const float *add;
  float low, high;

  // visit(line) for the rows of taps that fall inside the image, for one row of the outputs.
  template <class Visit> EPK_INLINE void lines(int64_t row, const Visit &visit) const {
    const bool flat = c.out[0] == 1;
    const int64_t oz = flat ? 0 : row / c.out[1], oy = flat ? row : row % c.out[1];
    const int64_t z = oz * c.stride[0] - c.pad[0], y = oy * c.stride[1] - c.pad[1];
    const Taps of_z = inside(c, 0, oz), of_y = inside(c, 1, oy);
    for (int64_t kz = of_z.first; kz < of_z.end; kz++)
      for (int64_t ky = of_y.first; ky < of_y.end; ky++)
        visit({x + (((z + kz * c.dilation[0]) * c.in[1] + y + ky * c.dilation[1]) * c.in[2] - c.pad[2]) * BLOCK,
               weights + (kz * c.kernel[1] + ky) * c.kernel[2] * BLOCK});
  }

  // The end of N neighbouring outputs from `place` on.
  template <int N> EPK_INLINE void finish(const vf (&acc)[N], int64_t place, int lane) const {
    const EpkEpilogue &e = c.epilogue;
    const vf start = load(bias + lane);
#pragma GCC unroll 14
    for (int i = 0; i < N; i++) {
      vf value = acc[i] * e.scale + start;
      if (add) value += load(add + place + i * BLOCK + lane);
      store(out + place + i * BLOCK + lane, vmin(splat(high), vmax(splat(low), value)));
    }
    if (lane + VL == BLOCK && !is_cheap(e.activation)) activate_all(e, out + place, N, BLOCK, BLOCK / VL, VL);
  }
};

// N neighbouring outputs of any kernel, with the taps of a row that fall inside the image for all of them.
template <int N> void any_pixels(const Depthwise &d, int64_t row, int64_t column, Taps of_x) {
  const int64_t step = d.c.stride[2] * BLOCK, spread = d.c.dilation[2] * BLOCK;
  for (int lane = 0; lane < BLOCK; lane += VL) {
    vf acc[N];
#pragma GCC unroll 14
    for (int i = 0; i < N; i++) acc[i] = vf{};
    d.lines(row, [&](Line line) {
      const float *from = line.x + column * step + lane;
      for (int64_t k = of_x.first; k < of_x.end; k++) {
        const vf weight = load(line.weights + k * BLOCK + lane);
#pragma GCC unroll 14
        for (int i = 0; i < N; i++) acc[i] = fma_of(load(from + k * spread + i * step), weight, acc[i]);
      }
    });
    d.finish(acc, (row * d.c.out[2] + column) * BLOCK, lane);
  }
}

void run_any(const Depthwise &d, int64_t first, int64_t end) {
  const int64_t width = d.c.out[2];
  const Taps all{0, d.c.kernel[2]};
  for (int64_t row = first; row < end; row++)
    for (int64_t column = 0; column < width;) {
      const Taps here = inside(d.c, 2, column), there = inside(d.c, 2, min_of(width, column + PIXELS) - 1);
      const bool inner = column + PIXELS <= width && here.first == 0 && there.end == all.end;
      if (inner) any_pixels<PIXELS>(d, row, column, all);
      else any_pixels<1>(d, row, column, here);
      column += inner ? PIXELS : 1;
    }
}

// N neighbouring outputs with KX taps of a row, STEP apart. At an EDGE, some of the image's columns lie outside: those
// before `begin`, and from `past` on; zeros stand for them.
template <int KX, int STEP, int N, bool EDGE>
void block(const Depthwise &d, const Line *lines, int64_t count, int64_t column, int64_t place) {
  alignas(64) static const float zeros[BLOCK] = {};
  const int64_t start = column * STEP, begin = d.c.pad[2] - start, past = begin + d.c.in[2];
  for (int lane = 0; lane < BLOCK; lane += VL) {
    vf acc[N];
#pragma GCC unroll 14
    for (int i = 0; i < N; i++) acc[i] = vf{};
    for (int64_t line = 0; line < count; line++) {
      const float *from = lines[line].x + start * BLOCK + lane, *w = lines[line].weights + lane;
      vf weight[KX];
#pragma GCC unroll 7
      for (int k = 0; k < KX; k++) weight[k] = load(w + k * BLOCK);
#pragma GCC unroll 33
      for (int j = 0; j < (N - 1) * STEP + KX; j++) {
        const vf pixel = load(EDGE && (j < begin || j >= past) ? zeros : from + j * BLOCK);
#pragma GCC unroll 7
        for (int k = 0; k < KX; k++)
          if (j >= k && (j - k) % STEP == 0 && (j - k) / STEP < N)
            acc[(j - k) / STEP] = fma_of(pixel, weight[k], acc[(j - k) / STEP]);
      }
    }
    d.finish(acc, place, lane);
  }
}

typedef void (*Block)(const Depthwise &, const Line *, int64_t, int64_t, int64_t);

template <int KX, int STEP, bool EDGE, int N = PIXELS> Block block_of(int64_t n) {
  if constexpr (N == 0) return nullptr;
  else return n == N ? block<KX, STEP, N, EDGE> : block_of<KX, STEP, EDGE, N - 1>(n);
}

// Rows [first, end), cut into blocks of nearly equal width.
template <int KX, int STEP> void run_rows(const Depthwise &d, int64_t first, int64_t end) {
  const EpkConv &c = d.c;
  const int64_t width = c.out[2], blocks = ceil_div(width, PIXELS);
  for (int64_t row = first; row < end; row++) {
    Line lines[LINES];
    int64_t count = 0;
    d.lines(row, [&](Line line) { lines[count++] = line; });
    for (int64_t b = 0; b < blocks; b++) {
      const int64_t column = b * width / blocks, n = (b + 1) * width / blocks - column;
      const bool edge = column * STEP < c.pad[2] || (column + n - 1) * STEP + KX > c.pad[2] + c.in[2];
      const Block f = edge ? block_of<KX, STEP, true>(n) : block_of<KX, STEP, false>(n);
      f(d, lines, count, column, (row * width + column) * BLOCK);
    }
  }
}

typedef void (*RunRows)(const Depthwise &, int64_t, int64_t);

RunRows rows_for(const EpkConv &c) {
  const int64_t k = c.dilation[2] == 1 && c.kernel[0] * c.kernel[1] <= LINES ? c.kernel[2] : 0, step = c.stride[2];
  if (k == 3) return step == 1 ? run_rows<3, 1> : step == 2 ? run_rows<3, 2> : run_any;
  if (k == 5) return step == 1 ? run_rows<5, 1> : step == 2 ? run_rows<5, 2> : run_any;
  return k == 7 && step == 1 ? run_rows<7, 1> : run_any;
}

}  // namespace

void depthwise(const ConvPlan &plan, const float *x, const float *packed, float *out, Parallel *p) {
  const EpkConv &c = plan.c;
  const int64_t blocks = ceil_div(c.channels, BLOCK), rows = c.out[0] * c.out[1];
  // All channels of a run of rows before the next run: as other convolutions cut their images, so that a thread finds
  // what it wrote in the step before.
  const int64_t threads = threads_of(p), runs = threads == 1 ? 1 : min_of(rows, threads * ceil_div(8, blocks));
  const int64_t grain = max_of<int64_t>(1, 512 * runs / max_of<int64_t>(plan.out_pixels(), 1));
  const RunRows run_rows = rows_for(c);
  const float *weights = packed + round_up(c.channels, BLOCK);
  parallel_for(p, blocks * runs, grain, [&](int64_t begin, int64_t end, int) {
    const FlushDenormals flush;
    for (int64_t i = begin; i < end; i++) {
      const int64_t run = i / blocks, block = i % blocks, place = block * plan.out_pixels() * BLOCK;
      Depthwise d{c, x + block * plan.in_pixels() * BLOCK, weights + block * plan.taps() * BLOCK,
                  packed + block * BLOCK, out + place, c.epilogue.add ? c.epilogue.add + place : nullptr, 0, 0};
      clip_bounds(c.epilogue, d.low, d.high);
      run_rows(d, run * rows / runs, (run + 1) * rows / runs);
    }
  });
}

}  // namespace EPK_NS
