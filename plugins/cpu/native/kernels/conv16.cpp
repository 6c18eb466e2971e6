#include "conv16.h"

#include "conv_plan.h"
#include "denormal.h"
#include "pack16.h"
#include "tile_f32.h"

namespace EPK_NS {
namespace {

// A convolution of single pixels is a product of matrices.
bool is_product(const ConvPlan &plan) {
  return plan.taps() == 1 && plan.padded[0] == 1 && plan.padded[1] == 1 && plan.padded[2] == plan.c.in[2] &&
         plan.c.out[2] == plan.c.in[2];
}

// A convolution of single pixels that leaves out some: those that it reads are gathered, and it is a product of them.
bool is_sparse(const EpkConv &c) {
  bool strides = false;
  for (int d = 0; d < 3; d++) {
    if (c.kernel[d] != 1 || c.pad[d] != 0 || c.in[d] < (c.out[d] - 1) * c.stride[d] + 1) return false;
    strides |= c.stride[d] > 1;
  }
  return strides;
}

EpkConv gathered(const EpkConv &c) {
  EpkConv dense = c;
  for (int d = 0; d < 3; d++) dense.in[d] = c.out[d], dense.stride[d] = 1;
  dense.in_blocked = 1;
  return dense;
}

// The pixels that one image's outputs read, blocked.
void gather(const EpkConv &c, const float *x, float *to, Parallel *p) {
  const int64_t in_pixels = c.in[0] * c.in[1] * c.in[2], rows = c.out[0] * c.out[1], width = c.out[2];
  const int64_t blocks = ceil_div(c.channels, BLOCK);
  parallel_for(p, blocks * rows, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t block = i / rows, z = i % rows / c.out[1] * c.stride[0], y = i % c.out[1] * c.stride[1];
      const float *from = x + (block * in_pixels + (z * c.in[1] + y) * c.in[2]) * BLOCK;
      for (int64_t j = 0; j < width; j++)
        memcpy(to + (i * width + j) * BLOCK, from + j * c.stride[2] * BLOCK, BLOCK * 4);
    }
  });
}

int64_t gathered_floats(const EpkConv &c) {
  return round_up(c.channels, BLOCK) * c.out[0] * c.out[1] * c.out[2];
}

int64_t bias_floats(const ConvPlan &plan) { return ceil_div(plan.filters, WIDE_PANEL) * WIDE_PANEL; }
int64_t depth(const ConvPlan &plan) { return plan.pieces(0) * BLOCK; }  // of the reduction

// One image with its padding, as lanes of a reduction.
struct Image {
  const ConvPlan &plan;
  const float *x;  // blocked
  void *to;
  int64_t rows() const { return plan.blocks * plan.padded[0] * plan.padded[1]; }
  int64_t lanes() const { return plan.padded[0] * plan.padded[1] * plan.padded[2] * BLOCK * plan.blocks; }

  // convert(x of one pixel's channels, lanes of them that are real, index of the pixel) for every pixel that is not padding.
  template <class Convert> void row(int64_t index, const Convert &convert) const {
    const EpkConv &c = plan.c;
    const int64_t block = index / (plan.padded[0] * plan.padded[1]), plane = index % (plan.padded[0] * plan.padded[1]);
    const int64_t z = plane / plan.padded[1] - plan.low[0], y = plane % plan.padded[1] - plan.low[1];
    if (z < 0 || z >= c.in[0] || y < 0 || y >= c.in[1]) return;
    const float *from = x + ((block * plan.in_pixels()) + (z * c.in[1] + y) * c.in[2]) * BLOCK;
    const int64_t real = min_of<int64_t>(BLOCK, plan.channels - block * BLOCK), begin = index * plan.padded[2] + plan.low[2];
    alignas(64) float edge[BLOCK] = {};
    for (int64_t i = 0; i < c.in[2]; i++, from += BLOCK) {
      if (real == BLOCK) {
        convert(from, begin + i);
        continue;
      }
      memcpy(edge, from, (size_t)real * 4);
      convert(edge, begin + i);
    }
  }

  void clear_row(int64_t index, int64_t lane_bytes) const {
    memset((char *)to + index * plan.padded[2] * lane_bytes, 0, (size_t)(plan.padded[2] * lane_bytes));
  }

  void floats(Parallel *p) const {
    parallel_for(p, rows(), 16, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; i++) {
        clear_row(i, BLOCK * 4);
        row(i, [&](const float *from, int64_t pixel) {
          for (int j = 0; j < BLOCK; j += VL) store((float *)to + pixel * BLOCK + j, round_bf16(load(from + j)));
        });
      }
    });
  }

  void pairs(Parallel *p) const {
    parallel_for(p, rows(), 16, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; i++) {
        clear_row(i, BLOCK * 2);
        row(i, [&](const float *from, int64_t pixel) {
          for (int j = 0; j < BLOCK; j++) ((uint16_t *)to)[pixel * BLOCK + j] = bf16_of(from[j]);
        });
      }
    });
  }

  // False where the image's numbers do not fit; else the power of two that takes its halves back.
  bool halves([[maybe_unused]] float &power, [[maybe_unused]] Parallel *p) const {
#if EPK_HALF_TILES
    int32_t most = 0;
    int64_t small = 0;
    parallel_for(p, rows(), 16, [&](int64_t begin, int64_t end, int) {
      vi here{};
      for (int64_t i = begin; i < end; i++)
        row(i, [&](const float *from, int64_t) {
          const vi x = bits(load(from)) & 0x7fffffff;
          here = here > x ? here : x;
        });
      const int32_t found = largest(here);
      int32_t seen = __atomic_load_n(&most, __ATOMIC_RELAXED);
      while (found > seen && !__atomic_compare_exchange_n(&most, &seen, found, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    });
    int exponent;
    if (!exponent_of_bits(most, exponent)) return false;
    const float factor = power_of_two(TOP_A - exponent);
    power = (float)(exponent - TOP_A);
    parallel_for(p, rows(), 16, [&](int64_t begin, int64_t end, int) {
      const FlushDenormals flush;
      vi inexact{};
      for (int64_t i = begin; i < end; i++) {
        if (plan.copy_in) clear_row(i, BLOCK * 4);
        row(i, [&](const float *from, int64_t pixel) {
          store_as((int32_t *)to + pixel * BLOCK, twice_half(load(from), factor, inexact));
        });
      }
      __atomic_fetch_add(&small, total(inexact), __ATOMIC_RELAXED);
    });
    return small * FEW <= plan.in_pixels() * plan.channels;
#else
    return false;
#endif
  }
};

struct Convolution {
  const ConvPlan &plan;
  const void *image;     // lanes
  const char *panels;
  int form;
  bool scaled;
  float power;
  EpkEpilogue e;         // with the packed bias
  float *out;
  const int64_t *offsets;  // in pixels of 16 lanes, times 16

  const Panel16 &panel_at(int64_t p) const { return *(const Panel16 *)(panels + p * Panel16::bytes(depth(plan))); }

  // `pixels` outputs of a row (and of the next one) for one panel; `wide`: the panel as float32, where that multiplies.
  void tile(int64_t p, const float *wide, int64_t z, int64_t y, int64_t column, int64_t pixels, bool two) const {
    const EpkConv &c = plan.c;
    const int64_t in_row = plan.padded[2] * BLOCK;
    const int64_t start = ((z * c.stride[0] + plan.low[0]) * plan.padded[1] + y * c.stride[1] + plan.low[1]) * in_row +
                          (column * c.stride[2] + plan.low[2]) * BLOCK;
    const int64_t second = start + c.stride[1] * in_row, step = c.stride[2] * BLOCK;
    const int rows = (int)pixels * (two ? 2 : 1);
    const int64_t filter = p * WIDE_PANEL, width = min_of(round_up(plan.filters, BLOCK) - filter, (int64_t)WIDE_PANEL);
    alignas(64) float sums[TILE_ROWS * WIDE_PANEL];
    const Panel16 &panel = panel_at(p);
    if (scaled) {
      const int32_t *x = (const int32_t *)image;
      TileHalf t{x + start, x + second, step, offsets, 0, plan.pieces(0), panel.steps(), sums, rows, width <= HALF_LANES ? 1 : 2, two, {}};
      tile_half(t);
    }
    for (int64_t half = 0; !scaled && half * PANEL < width; half++) {
      if (form == EPK_BF16_DOT) {
        TileRaw<MulBf16> t{};
        t.a = (const int32_t *)image + start / 2, t.a_second = (const int32_t *)image + second / 2, t.a_row = step / 2;
        t.offsets = offsets, t.blocks = plan.pieces(0), t.steps = BLOCK / 2;
        t.b = (const int32_t *)panel.steps() + half * PANEL, t.b_step = WIDE_PANEL;
        t.sums = (int32_t *)sums + half * PANEL, t.rows = rows, t.vectors = 2, t.two = two;
        tile_raw(t);
        continue;
      }
      TileF32 t{};
      t.a = (const float *)image + start, t.a_second = (const float *)image + second, t.a_row = step;
      t.offsets = offsets, t.blocks = plan.pieces(0), t.steps = BLOCK;
      t.b = wide + half * PANEL, t.b_step = WIDE_PANEL;
      t.c = sums + half * PANEL, t.c_row = WIDE_PANEL, t.c_vector = VL;
      t.c_second = t.c + pixels * WIDE_PANEL;
      if (two) double_tile_for((int)pixels, 2, step)(t);
      else tile_for((int)pixels, 2, step)(t);
    }
    const Finish16 end{e, plan.out_pixels() * BLOCK, true, true, scaled ? panel.exponent : nullptr};
    for (int64_t r = 0; r < rows; r++) {
      const bool below = r >= pixels;
      const int64_t pixel = (z * c.out[1] + y + below) * c.out[2] + column + (below ? r - pixels : r);
      const int64_t place = (filter / BLOCK * plan.out_pixels() + pixel) * BLOCK;
      end.row(sums + r * WIDE_PANEL, power, filter, width, out + place, e.add ? e.add + place : nullptr, 0.0f);
    }
  }

  // Rows [first, last) of the image for one panel.
  void rows(int64_t p, const float *wide, int64_t first, int64_t last) const {
    const int64_t height = plan.c.out[1], width = plan.c.out[2], tiles = ceil_div(width, TILE_ROWS);
    for (int64_t row = first; row < last; row++) {
      const int64_t z = row / height, y = row % height;
      if (width <= TILE_ROWS / 2 && row + 1 < last && y + 1 < height) {
        tile(p, wide, z, y, 0, width, true);
        row++;
        continue;
      }
      for (int64_t i = 0; i < tiles; i++) {
        const int64_t column = i * width / tiles;
        tile(p, wide, z, y, column, (i + 1) * width / tiles - column, false);
      }
    }
  }
};

void widen(const Panel16 &panel, int64_t steps, int form, float *wide) {
  for (int64_t i = 0; i < steps; i++)
    for (int64_t j = 0; j < WIDE_PANEL; j += VL) {
      const uint16_t *x = panel.steps() + i * WIDE_PANEL + j;
      const vf y = form == EPK_BF16_HALF ? scale_by(load_f16(x), load(panel.exponent + j)) : load_bf16(x);
      store(wide + i * WIDE_PANEL + j, y);
    }
}

void convolve(const Convolution &f, float *wide, Parallel *p) {
  const ConvPlan &plan = f.plan;
  const int64_t rows = plan.c.out[0] * plan.c.out[1], panels = ceil_div(plan.filters, WIDE_PANEL);
  const int threads = threads_of(p);
  const bool widens = !f.scaled && f.form != EPK_BF16_DOT;
  const int64_t wanted = threads == 1 ? 1 : 4 * threads;
  const bool stay = panels * Panel16::bytes(depth(plan)) <= 768 << 10;  // weights in L2 while rows pass
  const int64_t unit = plan.c.out[2] <= TILE_ROWS / 2 ? 2 : 1, units = ceil_div(rows, unit);
  const int64_t panel_chunks = stay && !widens ? 1 : min_of(panels, wanted);
  const int64_t row_chunks = min_of(units, stay && !widens ? 2 * wanted : ceil_div(wanted, panel_chunks));
  const int64_t wide_size = depth(plan) * WIDE_PANEL;
  parallel_for(p, row_chunks * panel_chunks, 1, [&](int64_t begin, int64_t end, int thread) {
    const FlushDenormals flush;
    for (int64_t i = begin; i < end; i++) {
      const int64_t first = i / panel_chunks * units / row_chunks * unit;
      const int64_t last = min_of(rows, (i / panel_chunks + 1) * units / row_chunks * unit);
      const int64_t panel = i % panel_chunks * panels / panel_chunks, past = (i % panel_chunks + 1) * panels / panel_chunks;
      float *own = wide + thread * wide_size;
      if (stay && !widens) {
        for (int64_t r = first; r < last; r += unit)
          for (int64_t q = panel; q < past; q++) f.rows(q, own, r, min_of(r + unit, last));
        continue;
      }
      for (int64_t q = panel; q < past; q++) {
        if (widens) widen(f.panel_at(q), depth(plan), f.form, own);
        f.rows(q, own, first, last);
      }
    }
  });
}

}  // namespace
}  // namespace EPK_NS

using namespace EPK_NS;

extern "C" int64_t EPK(conv16_packed_size)(const EpkConv *c) {
  const ConvPlan plan(*c);
  return bias_floats(plan) * 4 + EPK(gemm16_packed_size)(depth(plan), plan.filters);
}

extern "C" int64_t EPK(conv16_matrix_size)(const EpkConv *c) {
  const ConvPlan plan(*c);
  return depth(plan) * plan.filters * 4;
}

extern "C" void EPK(conv16_pack)(const EpkConv *c, const float *weights, const float *bias, int form, void *packed,
                                 float *matrix, Parallel *p) {
  const ConvPlan plan(*c);
  memset(packed, 0, (size_t)bias_floats(plan) * 4);
  if (bias) memcpy(packed, bias, (size_t)plan.filters * 4);
  // A matrix with a row for each step: channels of a block, taps, blocks of channels.
  const int64_t k = depth(plan);
  memset(matrix, 0, (size_t)(k * plan.filters) * 4);
  float *row = matrix;
  plan.visit_pieces(0, [&](int64_t block, int64_t i, int64_t j, int64_t l, int64_t) {
    const int64_t tap = (i * plan.c.kernel[1] + j) * plan.c.kernel[2] + l;
    for (int64_t s = 0; s < BLOCK; s++, row += plan.filters) {
      const int64_t channel = block * BLOCK + s;
      for (int64_t f = 0; channel < plan.channels && f < plan.filters; f++)
        row[f] = weights[(f * plan.channels + channel) * plan.taps() + tap];
    }
  });
  EPK(gemm16_pack)(matrix, k, plan.filters, plan.filters, 1, form, (char *)packed + bias_floats(plan) * 4, p);
}

// Scratch: the table of pieces, the blocked image, the image as lanes, a panel as float32 for each thread.
extern "C" int64_t EPK(conv16_scratch)(const EpkConv *c, int threads) {
  const ConvPlan plan(*c);
  if (!plan.possible()) return -1;
  if (c->in_blocked && is_sparse(*c)) {
    const EpkConv dense = gathered(*c);
    return gathered_floats(*c) * 4 + EPK(conv16_scratch)(&dense, threads);
  }
  const int64_t blocked = c->in_blocked ? 0 : plan.blocks * BLOCK * plan.in_pixels() * 4;
  if (is_product(plan)) {
    EpkGemm16 g{};
    g.m = plan.out_pixels(), g.n = round_up(plan.filters, BLOCK), g.k = depth(plan);
    return blocked + EPK(gemm16_scratch)(&g, threads);
  }
  const Image image{plan, nullptr, nullptr};
  return round_up(plan.table_size * 4, 64) + blocked + image.lanes() * 4 + threads * depth(plan) * WIDE_PANEL * 4;
}

extern "C" void EPK(conv16)(const EpkConv *c, const float *x, const void *packed, float *out, void *scratch, Parallel *p) {
  if (c->in_blocked && is_sparse(*c)) {
    EpkConv dense = gathered(*c);
    dense.n = 1;
    const int64_t image = round_up(c->channels, BLOCK) * c->in[0] * c->in[1] * c->in[2];
    const int64_t result = round_up(c->filters, BLOCK) * c->out[0] * c->out[1] * c->out[2];
    float *pixels = (float *)scratch;
    for (int64_t n = 0; n < c->n; n++) {
      gather(*c, x + n * image, pixels, p);
      EPK(conv16)(&dense, pixels, packed, out + n * result, pixels + gathered_floats(*c), p);
      if (dense.epilogue.add) dense.epilogue.add += result;
    }
    return;
  }
  const ConvPlan plan(*c);
  const char *weights = (const char *)packed + bias_floats(plan) * 4;
  const int64_t x_size = (c->in_blocked ? plan.blocks * BLOCK : plan.channels) * plan.in_pixels();
  const int64_t pixels = plan.out_pixels(), out_size = round_up(plan.filters, BLOCK) * pixels;
  int64_t *table = (int64_t *)scratch, *entry = table;
  float *blocked = (float *)((char *)scratch + (is_product(plan) ? 0 : round_up(plan.table_size * 4, 64)));
  float *lanes = blocked + (c->in_blocked ? 0 : plan.blocks * BLOCK * plan.in_pixels());
  if (!is_product(plan))
    plan.visit_pieces(0, [&](int64_t, int64_t, int64_t, int64_t, int64_t offset) { *entry++ = offset; });
  for (int64_t n = 0; n < c->n; n++) {
    const float *from = x + n * x_size;
    if (!c->in_blocked) EPK(to_blocked_f32)(from, 1, plan.channels, plan.in_pixels(), blocked, p), from = blocked;
    EpkEpilogue e = c->epilogue;
    e.bias = (const float *)packed;
    if (e.add) e.add += n * out_size;
    if (is_product(plan)) {
      const EpkGemm16 g{pixels, round_up(plan.filters, BLOCK), plan.channels, from, BLOCK, pixels * BLOCK,
                        weights, out + n * out_size, BLOCK, pixels * BLOCK, e};
      EPK(gemm16)(&g, lanes, p);
      continue;
    }
    const Image image{plan, from, lanes};
    Convolution f{plan, lanes, weights + sizeof(Header16), ((const Header16 *)weights)->form, false, 0.0f, e,
                  out + n * out_size, table};
    f.scaled = f.form == EPK_BF16_HALF && image.halves(f.power, p);
    if (f.form == EPK_BF16_DOT) {
      for (entry = table; n == 0 && entry < table + plan.pieces(0); entry++) *entry /= 2;
      image.pairs(p);
    } else if (!f.scaled) {
      image.floats(p);
    }
    convolve(f, lanes + image.lanes(), p);
  }
}
