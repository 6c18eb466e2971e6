#include "winograd.h"

#include "denormal.h"
#include "tile_f32.h"

namespace EPK_NS {
namespace {

// One dimension of Bᵀ d, in place; elements are `S` apart.
template <int M, int S> EPK_INLINE void transform_input(vf *d) {
  if constexpr (M == 2) {
    const vf d1 = d[S], d2 = d[2 * S];
    d[0] = d2 - d[0];
    d[S] = d2 + d1;
    d[2 * S] = d2 - d1;
    d[3 * S] = d[3 * S] - d1;
  } else {
    constexpr float A = NEAR, B = FAR, A2 = NEAR * NEAR, B2 = FAR * FAR, SUM = A2 + B2, PRODUCT = A2 * B2;
    const vf d1 = d[S], d2 = d[2 * S], d3 = d[3 * S], d4 = d[4 * S];
    const vf even_a = d4 - B2 * d2, odd_a = A * (d3 - B2 * d1);
    const vf even_b = d4 - A2 * d2, odd_b = B * (d3 - A2 * d1);
    d[0] = PRODUCT * d[0] + (d4 - SUM * d2);
    d[S] = even_a + odd_a;
    d[2 * S] = even_a - odd_a;
    d[3 * S] = even_b + odd_b;
    d[4 * S] = even_b - odd_b;
    d[5 * S] = PRODUCT * d1 + (d[5 * S] - SUM * d3);
  }
}

// One dimension of Aᵀ m: M + 2 elements `S` apart to M elements `T` apart.
template <int M, int S, int T> EPK_INLINE void transform_output(const vf *m, vf *y) {
  if constexpr (M == 2) {
    y[0] = m[0] + m[S] + m[2 * S];
    y[T] = m[S] - m[2 * S] + m[3 * S];
  } else {
    constexpr float A = NEAR, B = FAR, A2 = A * A, B2 = B * B;
    const vf sum_a = m[S] + m[2 * S], sum_b = m[3 * S] + m[4 * S];
    const vf odd_a = m[S] - m[2 * S], odd_b = m[3 * S] - m[4 * S];
    y[0] = m[0] + sum_a + sum_b;
    y[T] = A * odd_a + B * odd_b;
    y[2 * T] = A2 * sum_a + B2 * sum_b;
    y[3 * T] = A2 * A * odd_a + (B2 * B * odd_b + m[5 * S]);
  }
}

// The rows of G: the kernel at each point, over what Lagrange's formula divides by.
template <int M> void kernel_transform(double (&g)[M + 2][3]) {
  const double points[] = {M == 2 ? 1 : NEAR, M == 2 ? -1 : -NEAR, FAR, -FAR};
  for (int i = 0; i <= M; i++) {
    const double point = i ? points[i - 1] : 0;
    double scale = i ? point : 1;
    for (int j = 1; j <= M; j++)
      if (j != i) scale *= point - points[j - 1];
    for (int k = 0; k < 3; k++) g[i][k] = (k == 0 ? 1 : k == 1 ? point : point * point) / scale;
  }
  g[M + 1][0] = g[M + 1][1] = 0, g[M + 1][2] = 1;
}

constexpr int64_t CACHE = 1 << 20;  // bytes of transformed input that stay in L2 while panels of filters pass
constexpr int64_t LINE = 16;        // floats in a line of the cache

// Elements from one point's plane to the next, of whole lines and an odd number of them: powers of two between the
// points of a tile would all fall into the same places of L1.
int64_t plane_of(int64_t elements) { return (ceil_div(elements, LINE) | 1) * LINE; }

// How the tiles of an image are cut into chunks, and chunks into tasks.
struct Cut {
  int64_t rows, columns, tiles;  // tiles down, across, in all
  int64_t chunk, chunks;         // tiles of a chunk
  bool apart;                    // a thread has chunks of its own; else all threads share in one after the other
  int64_t parts;                 // tasks into which the tiles of a shared chunk are cut, for each panel
  int64_t in_size, out_size;     // scratch elements of a chunk, and of one panel of it

  Cut(const ConvPlan &plan, int threads) {
    const int64_t m = plan.winograd, points = (m + 2) * (m + 2);
    rows = ceil_div(plan.c.out[1], m), columns = ceil_div(plan.c.out[2], m), tiles = rows * columns;
    const int64_t tile_bytes = points * plan.blocks * BLOCK * 4;
    const int64_t weights = winograd_packed_size(plan) * 4;
    chunk = max_of<int64_t>(2 * TILE_ROWS, CACHE / tile_bytes);
    chunks = max_of<int64_t>(1, ceil_div(tiles, chunk));
    apart = threads > 1 && weights <= CACHE && tiles >= 2 * TILE_ROWS * threads;
    if (apart) chunks = round_up(max_of<int64_t>(chunks, min_of(tiles / (2 * TILE_ROWS), (int64_t)2 * threads)), threads);
    chunk = max_of<int64_t>(1, ceil_div(tiles, chunks));
    chunks = ceil_div(tiles, chunk);
    parts = threads == 1 || apart ? 1 : min_of(ceil_div(2 * threads, plan.panels), ceil_div(chunk, TILE_ROWS));
    in_size = points * plane_of(plan.blocks * BLOCK * chunk);
    out_size = points * plane_of(PANEL * ceil_div(chunk, parts));
  }
};

// The epilogue of a tile's outputs for a vector of filters.
struct Finish {
  vf bias;
  const EpkEpilogue &e;
  const float *add;
  float *out;
  int64_t row_size;  // elements between rows
  bool raw;          // without the epilogue
  float low, high;   // of an activation that is a clip; no other is done here

  EPK_INLINE void row(int64_t i, const vf *y, int64_t width) const {
    for (int64_t j = 0; j < width; j++) {
      const int64_t at = i * row_size + j * BLOCK;
      vf value = y[j];
      if (!raw) {
        value = value * e.scale + bias;
        if (add) value += load(add + at);
        value = vmin(splat(high), vmax(splat(low), value));
      }
      store(out + at, value);
    }
  }
};

template <int M> struct Winograd {
  static constexpr int N = M + 2, POINTS = N * N;
  const ConvPlan &plan;
  const Cut &cut;
  const float *x, *weights, *bias, *add;
  bool raw;
  float *out;

  // Tiles [first, first + count) of a chunk.
  struct Chunk {
    int64_t first, count;
    float *in;  // [point][block][tile][BLOCK]
  };

  // The inputs of one tile and block of channels, transformed.
  void tile_in(const Chunk &chunk, int64_t block, int64_t tile) const {
    const EpkConv &c = plan.c;
    const int64_t index = chunk.first + tile, row = c.in[2] * BLOCK;
    const int64_t y = index / cut.columns * M - c.pad[1], left = index % cut.columns * M - c.pad[2];
    const float *from = x + block * plan.in_pixels() * BLOCK + y * row + left * BLOCK;
    float *to = chunk.in + (block * chunk.count + tile) * BLOCK;
    const int64_t plane = plane_of(plan.blocks * BLOCK * chunk.count);
    const int64_t y0 = max_of<int64_t>(0, -y), y1 = min_of<int64_t>(N, c.in[1] - y);
    const int64_t x0 = max_of<int64_t>(0, -left), x1 = min_of<int64_t>(N, c.in[2] - left);
    const bool inside = y0 == 0 && x0 == 0 && y1 == N && x1 == N;
    for (int lane = 0; lane < BLOCK; lane += VL) {
      vf d[POINTS];
      if (inside) {
#pragma GCC unroll 36
        for (int i = 0; i < POINTS; i++) d[i] = load(from + i / N * row + i % N * BLOCK + lane);
      } else {
        for (int i = 0; i < POINTS; i++) d[i] = vf{};
        for (int64_t i = y0; i < y1; i++)
          for (int64_t j = x0; j < x1; j++) d[i * N + j] = load(from + i * row + j * BLOCK + lane);
      }
#pragma GCC unroll 6
      for (int i = 0; i < N; i++) transform_input<M, N>(d + i);
#pragma GCC unroll 6
      for (int i = 0; i < N; i++) {
        transform_input<M, 1>(d + i * N);
#pragma GCC unroll 6
        for (int j = 0; j < N; j++) store(to + (i * N + j) * plane + lane, d[i * N + j]);
      }
    }
  }

  // Tiles [begin, end) of a chunk by the filters of a panel: products to `sums`, [point][tile][PANEL].
  void multiply(const Chunk &chunk, int64_t panel, int64_t begin, int64_t end, float *sums) const {
    const int64_t plane = plane_of(plan.blocks * BLOCK * chunk.count), rows = end - begin;
    const int64_t count = ceil_div(rows, TILE_ROWS), steps = plan.blocks * BLOCK;
    TileF32 t{};
    t.a_row = BLOCK, t.a_block = chunk.count * BLOCK, t.blocks = plan.blocks, t.steps = BLOCK;
    t.b_step = PANEL, t.c_row = PANEL, t.c_vector = VL;
    const int vectors = (int)min_of<int64_t>(2, (plan.padded_filters - panel * PANEL) / VL);
    for (int64_t point = 0; point < POINTS; point++) {
      t.b = weights + (panel * POINTS + point) * steps * PANEL;
      for (int64_t i = 0; i < count; i++) {
        const int64_t row = i * rows / count, height = (i + 1) * rows / count - row;
        t.a = chunk.in + point * plane + (begin + row) * BLOCK;
        t.c = sums + point * plane_of(rows * PANEL) + row * PANEL;
        tile_for((int)height, vectors, BLOCK)(t);
      }
    }
  }

  // The outputs of one tile for a vector of filters, from the products of its points, `plane` apart.
  void tile_out(int64_t tile, int64_t filter, const float *sums, int64_t plane) const {
    const EpkConv &c = plan.c;
    const EpkEpilogue &e = c.epilogue;
    vf half[M * N], y[M];
#pragma GCC unroll 6
    for (int j = 0; j < N; j++) {
      vf column[N];
#pragma GCC unroll 6
      for (int i = 0; i < N; i++) column[i] = load(sums + (i * N + j) * plane);
      transform_output<M, 1, N>(column, half + j);
    }
    const int64_t top = tile / cut.columns * M, left = tile % cut.columns * M;
    const int64_t height = min_of<int64_t>(M, c.out[1] - top), width = min_of<int64_t>(M, c.out[2] - left);
    const int64_t place = (filter / BLOCK * plan.out_pixels() + top * c.out[2] + left) * BLOCK + filter % BLOCK;
    Finish finish{load(bias + filter), e, add ? add + place : nullptr, out + place, c.out[2] * BLOCK, raw, 0, 0};
    clip_bounds(e, finish.low, finish.high);
    if (height == M && width == M) {
#pragma GCC unroll 4
      for (int i = 0; i < M; i++) {
        transform_output<M, 1, 1>(half + i * N, y);
        finish.row(i, y, M);
      }
    } else {
      for (int64_t i = 0; i < height; i++) {
        transform_output<M, 1, 1>(half + i * N, y);
        finish.row(i, y, width);
      }
    }
    if (!raw && !is_cheap(e.activation)) activate_all(e, out + place, height, c.out[2] * BLOCK, width, BLOCK);
  }

  void task(const Chunk &chunk, int64_t panel, int64_t part, int64_t parts, float *sums) const {
    const int64_t begin = part * chunk.count / parts, end = (part + 1) * chunk.count / parts;
    multiply(chunk, panel, begin, end, sums);
    const int64_t plane = plane_of((end - begin) * PANEL);
    for (int v = 0; v < 2 && panel * PANEL + v * VL < plan.padded_filters; v++)
      for (int64_t tile = begin; tile < end; tile++)
        tile_out(chunk.first + tile, panel * PANEL + v * VL, sums + (tile - begin) * PANEL + v * VL, plane);
  }

  void chunk(int64_t index, float *in, float *sums, Parallel *p) const {
    const int64_t first = index * cut.chunk, count = min_of(cut.chunk, cut.tiles - first);
    const Chunk chunk{first, count, in};
    const int64_t pieces = plan.blocks * count;
    parallel_for(p, pieces, ceil_div(pieces, 4 * threads_of(p)), [&](int64_t begin, int64_t end, int) {
      const FlushDenormals flush;
      for (int64_t i = begin; i < end; i++) tile_in(chunk, i / count, i % count);
    });
    parallel_for(p, plan.panels * cut.parts, 1, [&](int64_t begin, int64_t end, int thread) {
      const FlushDenormals flush;
      for (int64_t i = begin; i < end; i++)
        task(chunk, i / cut.parts, i % cut.parts, cut.parts, sums + thread * cut.out_size);
    });
  }

  void run(float *scratch, Parallel *p) const {
    if (!cut.apart) {
      for (int64_t i = 0; i < cut.chunks; i++) chunk(i, scratch, scratch + cut.in_size, p);
      return;
    }
    parallel_for(p, cut.chunks, 1, [&](int64_t begin, int64_t end, int thread) {
      float *own = scratch + thread * (cut.in_size + cut.out_size);
      for (int64_t i = begin; i < end; i++) chunk(i, own, own + cut.in_size, nullptr);
    });
  }
};

// The filters of one panel for one block of channels, at every point.
template <int M> void pack_block(const ConvPlan &plan, const float *weights, int64_t panel, int64_t block, float *packed) {
  constexpr int N = M + 2;
  double g[N][3];
  kernel_transform<M>(g);
  for (int64_t channel = block * BLOCK; channel < (block + 1) * BLOCK; channel++) {
    double taps[9][PANEL] = {}, half[N][3][PANEL] = {};
    const int64_t real = channel < plan.channels ? min_of<int64_t>(PANEL, plan.filters - panel * PANEL) : 0;
    for (int64_t f = 0; f < real; f++)
      for (int t = 0; t < 9; t++) taps[t][f] = weights[((panel * PANEL + f) * plan.channels + channel) * 9 + t];
    for (int i = 0; i < N; i++)
      for (int t = 0; t < 9; t++)
        for (int f = 0; f < PANEL; f++) half[i][t % 3][f] += g[i][t / 3] * taps[t][f];
    for (int i = 0; i < N; i++)
      for (int j = 0; j < N; j++) {
        float *to = packed + ((panel * N * N + i * N + j) * plan.blocks * BLOCK + channel) * PANEL;
        for (int f = 0; f < PANEL; f++)
          to[f] = (float)(g[j][0] * half[i][0][f] + g[j][1] * half[i][1][f] + g[j][2] * half[i][2][f]);
      }
  }
}

}  // namespace

int64_t winograd_packed_size(const ConvPlan &plan) {
  return plan.panels * (plan.winograd + 2) * (plan.winograd + 2) * plan.blocks * BLOCK * PANEL;
}

void winograd_pack(const ConvPlan &plan, const float *weights, float *packed, Parallel *p) {
  parallel_for(p, plan.panels * plan.blocks, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      if (plan.winograd == 2) pack_block<2>(plan, weights, i / plan.blocks, i % plan.blocks, packed);
      else pack_block<4>(plan, weights, i / plan.blocks, i % plan.blocks, packed);
    }
  });
}

int64_t winograd_scratch(const ConvPlan &plan, int threads) {
  const Cut cut(plan, threads);
  return threads * cut.out_size + (cut.apart ? threads : 1) * cut.in_size;
}

void winograd(const ConvPlan &plan, const float *x, const float *weights, const float *bias, const float *add,
              bool raw, float *out, float *scratch, Parallel *p) {
  const Cut cut(plan, threads_of(p));
  if (plan.winograd == 2) Winograd<2>{plan, cut, x, weights, bias, add, raw, out}.run(scratch, p);
  else Winograd<4>{plan, cut, x, weights, bias, add, raw, out}.run(scratch, p);
}

}  // namespace EPK_NS
