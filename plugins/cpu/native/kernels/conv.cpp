#include "conv_plan.h"
#include "denormal.h"

#include "tile_f32.h"
#include "transpose.h"
#include "winograd.h"

namespace EPK_NS {
namespace {

// One image, padded, in the layout that the reduction wants; row by row, as the convolution goes over it.
void copy_image(const ConvPlan &plan, const float *x, float *to, Parallel *p) {
  const EpkConv &c = plan.c;
  const int64_t *size = plan.padded, *low = plan.low;
  const int64_t pixels = plan.in_pixels(), plane = size[0] * size[1] * size[2];
  const int64_t pieces = c.group * plan.blocks, rows = size[0] * size[1];
  const int64_t grain = max_of<int64_t>(1, 16384 / max_of<int64_t>(size[2] * plan.unit, 1));
  parallel_for(p, pieces * rows, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t piece = i % pieces, index = i / pieces, z = index / size[1] - low[0], y = index % size[1] - low[1];
      float *row = to + (piece * plane + index * size[2]) * plan.unit;
      if (z < 0 || z >= c.in[0] || y < 0 || y >= c.in[1]) {
        memset(row, 0, (size_t)(size[2] * plan.unit) * 4);
        continue;
      }
      const int64_t pixel = (z * c.in[1] + y) * c.in[2];
      memset(row, 0, (size_t)(low[2] * plan.unit) * 4);
      row += low[2] * plan.unit;
      const int64_t behind = size[2] - low[2] - c.in[2];
      memset(row + c.in[2] * plan.unit, 0, (size_t)(behind * plan.unit) * 4);
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
  });
}

// One image from the blocks of each group to the layout that was asked for, with the epilogue.
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

struct Convolution {
  const ConvPlan &plan;
  const float *x;        // one image, padded
  const float *bias, *weights;
  float *out;            // one image, blocked by groups
  const float *add;      // as out, or null
  bool raw;              // without the epilogue
  const int64_t *table;

  // Filters of a panel over `pixels` pixels of one row of a phase, or of two rows.
  struct Place {
    int64_t phase, group, panel, z, y, column, pixels;
    bool two;
  };

  void tile(const Place &at, const float *panel_weights, const int64_t *offsets) const {
    const EpkConv &c = plan.c;
    const EpkEpilogue &e = c.epilogue;
    const int64_t in_row = plan.padded[2] * plan.unit, plane = plan.out_pixels() * BLOCK;
    const int64_t in_plane = plan.padded[0] * plan.padded[1] * in_row;
    TileF32 t{};
    t.a = x + at.group * plan.blocks * in_plane +
          ((at.z * plan.in_step(0) + plan.low[0]) * plan.padded[1] + at.y * plan.in_step(1) + plan.low[1]) * in_row +
          (at.column * plan.in_step(2) + plan.low[2]) * plan.unit;
    t.a_second = t.a + plan.in_step(1) * in_row;
    t.a_row = plan.in_step(2) * plan.unit;
    t.offsets = offsets, t.blocks = plan.pieces(at.phase), t.steps = plan.steps();
    t.b = panel_weights, t.b_step = PANEL;
    const int64_t filter = at.panel * PANEL;
    const int64_t oz = plan.phase_of(at.phase, 0) + at.z * plan.out_step(0);
    const int64_t oy = plan.phase_of(at.phase, 1) + at.y * plan.out_step(1);
    const int64_t ox = plan.phase_of(at.phase, 2) + at.column * plan.out_step(2);
    const int64_t place = (at.group * plan.padded_filters / BLOCK + filter / BLOCK) * plane +
                          ((oz * c.out[1] + oy) * c.out[2] + ox) * BLOCK + filter % BLOCK;
    const int64_t second = plan.out_step(1) * c.out[2] * BLOCK;
    t.c = out + place, t.c_second = t.c + second;
    t.c_row = t.add_row = plan.out_step(2) * BLOCK;
    t.c_vector = t.add_vector = VL == BLOCK ? plane : VL;
    t.last = !raw;
    t.scale = e.scale;
    clip_bounds(e, t.low, t.high);
    t.bias = bias + at.group * plan.panels * PANEL + filter;
    t.add = add ? add + place : nullptr, t.add_second = add ? t.add + second : nullptr;
    const int vectors = (int)min_of<int64_t>(2, (plan.padded_filters - filter) / VL);
    if (at.two) double_tile_for((int)at.pixels, vectors, t.a_row)(t);
    else tile_for((int)at.pixels, vectors, t.a_row)(t);
    if (raw || is_cheap(e.activation)) return;
    activate_all(e, t.c, at.pixels, t.c_row, vectors, t.c_vector);
    if (at.two) activate_all(e, t.c_second, at.pixels, t.c_row, vectors, t.c_vector);
  }

  // Rows [first, end) of a phase for one panel.
  void rows(int64_t phase, int64_t group, int64_t panel, int64_t first, int64_t end, const float *panel_weights,
            const int64_t *offsets) const {
    const int64_t height = plan.count(phase, 1), width = plan.count(phase, 2);
    const int64_t tiles = ceil_div(width, TILE_ROWS);
    for (int64_t row = first; row < end; row++) {
      Place at{phase, group, panel, row / height, row % height, 0, width, false};
      if (width <= TILE_ROWS / 2 && row + 1 < end && at.y + 1 < height) {
        at.two = true, row++;
        tile(at, panel_weights, offsets);
        continue;
      }
      for (int64_t i = 0; i < tiles; i++) {
        at.column = i * width / tiles, at.pixels = (i + 1) * width / tiles - at.column;
        tile(at, panel_weights, offsets);
      }
    }
  }
};

// A flat image is cut into runs of pixels that play the part of rows.
void convolve(const Convolution &f, Parallel *p) {
  const ConvPlan &plan = f.plan;
  const int threads = threads_of(p);
  int64_t total = 0;
  for (int64_t phase = 0; phase < plan.phases; phase++) total += plan.panels * plan.panel_size(phase);
  const float *weights = f.weights;
  const int64_t *offsets = f.table;
  for (int64_t phase = 0; phase < plan.phases; phase++) {
    const int64_t height = plan.count(phase, 0) * plan.count(phase, 1), width = plan.count(phase, 2);
    const bool flat = height == 1, empty = height * width == 0;
    const int64_t tiles = ceil_div(width, TILE_ROWS);
    const int64_t rows = flat ? tiles : height, size = plan.panel_size(phase);
    // Small weights stay in L2 while rows pass; large ones pass once while the image stays.
    const bool weights_stay = plan.panels * size * 4 <= 768 << 10;
    const int64_t wanted = 4 * threads;
    const int64_t unit = !flat && width <= TILE_ROWS / 2 ? 2 : 1, units = ceil_div(rows, unit);  // rows of a tile
    int64_t row_chunks, panel_chunks;
    if (threads == 1) row_chunks = panel_chunks = 1;
    else if (weights_stay) row_chunks = min_of(units, 2 * wanted), panel_chunks = 1;
    else panel_chunks = min_of(plan.panels, wanted), row_chunks = min_of(units, ceil_div(wanted, panel_chunks));
    if (row_chunks * panel_chunks < wanted && plan.panels > 1 && threads > 1)
      panel_chunks = min_of(plan.panels, ceil_div(wanted, max_of<int64_t>(row_chunks, 1)));
    auto one = [&](int64_t group, int64_t panel, int64_t first, int64_t end) {
      const float *own = weights + group * total + panel * size;
      if (!flat) {
        f.rows(phase, group, panel, first, end, own, offsets);
        return;
      }
      for (int64_t i = first; i < end; i++) {
        const int64_t column = i * width / tiles;
        f.tile({phase, group, panel, 0, 0, column, (i + 1) * width / tiles - column, false}, own, offsets);
      }
    };
    parallel_for(p, empty ? 0 : plan.c.group * row_chunks * panel_chunks, 1, [&](int64_t begin, int64_t end, int) {
      const FlushDenormals flush;
      for (int64_t i = begin; i < end; i++) {
        const int64_t group = i / (row_chunks * panel_chunks), row_chunk = i / panel_chunks % row_chunks;
        const int64_t panel_chunk = i % panel_chunks;
        const int64_t first = row_chunk * units / row_chunks * unit;
        const int64_t last = min_of(rows, (row_chunk + 1) * units / row_chunks * unit);
        const int64_t panel = panel_chunk * plan.panels / panel_chunks;
        const int64_t end_panel = (panel_chunk + 1) * plan.panels / panel_chunks;
        if (weights_stay) {
          for (int64_t r = first; r < last; r += unit)
            for (int64_t q = panel; q < end_panel; q++) one(group, q, r, min_of(r + unit, last));
        } else {
          for (int64_t q = panel; q < end_panel; q++) one(group, q, first, last);
        }
      }
    });
    weights += plan.panels * size;
    offsets += plan.pieces(phase);
  }
}

int64_t weights_size(const ConvPlan &plan) {
  if (plan.depthwise) return round_up(plan.c.filters, BLOCK) * plan.taps();
  if (plan.winograd) return winograd_packed_size(plan);
  int64_t size = 0;
  for (int64_t phase = 0; phase < plan.phases; phase++) size += plan.panels * plan.panel_size(phase);
  return plan.c.group * size;
}

int64_t bias_size(const ConvPlan &plan) {
  return plan.depthwise ? round_up(plan.c.filters, BLOCK) : plan.c.group * plan.panels * PANEL;
}

// Where the weight of a filter of a group is, for a channel of the group and a tap.
int64_t weight_index(const ConvPlan &plan, int64_t group, int64_t filter, int64_t channel, int64_t tap) {
  if (plan.c.transposed)  // [channels][filters of a group][taps]
    return ((group * plan.channels + channel) * plan.filters + filter) * plan.taps() + tap;
  return ((group * plan.filters + filter) * plan.channels + channel) * plan.taps() + tap;
}

void pack_panel(const ConvPlan &plan, const float *w, int64_t phase, int64_t group, int64_t panel, float *packed) {
  const int64_t first = panel * PANEL, filters = max_of<int64_t>(0, min_of<int64_t>(PANEL, plan.filters - first));
  const int64_t apart = (plan.c.transposed ? 1 : plan.channels) * plan.taps();  // from one filter to the next
  plan.visit_pieces(phase, [&](int64_t block, int64_t i, int64_t j, int64_t k, int64_t) {
    for (int64_t s = 0; s < plan.steps(); s++, packed += PANEL) {
      const int64_t channel = plan.planar ? block : block * BLOCK + s;
      const int64_t tap = (i * plan.c.kernel[1] + j) * plan.c.kernel[2] + (plan.planar ? k + s : k);
      const int64_t real = channel < plan.channels ? filters : 0;
      const float *from = real ? w + weight_index(plan, group, first, channel, tap) : w;
      for (int64_t f = 0; f < real; f++) packed[f] = from[f * apart];
      for (int64_t f = real; f < PANEL; f++) packed[f] = 0.0f;
    }
  });
}

// Every panel of every phase of every group, as they follow each other in the packed weights.
void pack_panels(const ConvPlan &plan, const float *w, float *packed, Parallel *p) {
  for (int64_t group = 0; group < plan.c.group; group++)
    for (int64_t phase = 0; phase < plan.phases; phase++) {
      const int64_t size = plan.panel_size(phase);
      parallel_for(p, plan.panels, 1, [&](int64_t begin, int64_t end, int) {
        for (int64_t q = begin; q < end; q++) pack_panel(plan, w, phase, group, q, packed + q * size);
      });
      packed += plan.panels * size;
    }
}

}  // namespace
}  // namespace EPK_NS

using namespace EPK_NS;

extern "C" int64_t EPK(conv_packed_size_f32)(const EpkConv *c) {
  const ConvPlan plan(*c);
  return (bias_size(plan) + weights_size(plan)) * 4;
}

extern "C" void EPK(conv_pack_f32)(const EpkConv *c, const float *weights, const float *bias, float *packed,
                                   Parallel *p) {
  const ConvPlan plan(*c);
  const int64_t biases = bias_size(plan), taps = plan.taps();
  memset(packed, 0, (size_t)biases * 4);
  if (plan.depthwise) {  // [block][tap][16]
    if (bias) memcpy(packed, bias, (size_t)c->filters * 4);
    float *to = packed + biases;
    for (int64_t f = 0; f < biases; f++)
      for (int64_t t = 0; t < taps; t++)
        to[(f / BLOCK * taps + t) * BLOCK + f % BLOCK] = f < c->filters ? weights[f * taps + t] : 0.0f;
    return;
  }
  for (int64_t g = 0; bias && g < c->group; g++)
    memcpy(packed + g * plan.panels * PANEL, bias + g * plan.filters, (size_t)plan.filters * 4);
  if (plan.winograd) return winograd_pack(plan, weights, packed + biases, p);
  pack_panels(plan, weights, packed + biases, p);
}

extern "C" int64_t EPK(conv_scratch_f32)(const EpkConv *c, int threads) {
  const ConvPlan plan(*c);
  if (!plan.possible()) return -1;
  const int64_t work = plan.winograd ? winograd_scratch(plan, threads) : plan.table_size;
  return (work + round_up(plan.in_size, 16) + round_up(plan.out_size, 16)) * 4;
}

extern "C" void EPK(conv_f32)(const EpkConv *c, const float *x, const float *packed, float *out, void *scratch,
                              Parallel *p) {
  const ConvPlan plan(*c);
  float *image = (float *)scratch, *result = image + round_up(plan.in_size, 16);
  float *work = result + round_up(plan.out_size, 16);
  int64_t *const table = (int64_t *)work;
  const int64_t pixels = plan.out_pixels();
  const int64_t x_size = (c->in_blocked ? round_up(c->channels, BLOCK) : c->channels) * plan.in_pixels();
  const int64_t out_size = (c->out_blocked ? round_up(c->filters, BLOCK) : c->filters) * pixels;
  if (plan.depthwise) {
    for (int64_t n = 0; n < c->n; n++) {
      const float *from = x + n * x_size;
      ConvPlan own = plan;
      float *to = c->out_blocked ? out + n * out_size : result;
      if (!c->in_blocked) EPK(to_blocked_f32)(from, 1, c->channels, plan.in_pixels(), image, p);
      if (!c->out_blocked) own.c.epilogue = {1.0f, EPK_NONE, 0, 0, nullptr, nullptr, nullptr, 0};
      else if (own.c.epilogue.add) own.c.epilogue.add += n * out_size;
      const float *weights = packed;
      depthwise(own, c->in_blocked ? from : image, weights, to, p);
      if (c->out_blocked) continue;
      EPK(from_blocked_f32)(result, 1, c->filters, pixels, out + n * out_size, p);
      EpkEpilogue e = c->epilogue;
      e.bias = nullptr;
      if (e.add) e.add += n * out_size;
      float *y = out + n * out_size;
      if (e.add || e.activation != EPK_NONE || e.scale != 1.0f)
        parallel_for(p, out_size, 4096, [&](int64_t begin, int64_t end, int) {
          finish_row(e, y + begin, y + begin, 0, begin, end - begin);
        });
    }
    return;
  }
  int64_t *entry = table;
  for (int64_t phase = 0; phase < plan.phases && !plan.winograd; phase++)
    plan.visit_pieces(phase, [&](int64_t, int64_t, int64_t, int64_t, int64_t offset) { *entry++ = offset; });
  for (int64_t n = 0; n < c->n; n++) {
    if (plan.copy_in) copy_image(plan, x + n * x_size, image, p);
    Convolution f{plan, plan.copy_in ? image : x + n * x_size, packed, packed + bias_size(plan),
                  plan.copy_out ? result : out + n * out_size, nullptr, plan.copy_out, table};
    if (!plan.copy_out && c->epilogue.add) f.add = c->epilogue.add + n * out_size;
    if (plan.winograd) winograd(plan, f.x, f.weights, packed, f.add, f.raw, f.out, work, p);
    else convolve(f, p);
    if (plan.copy_out) copy_result(plan, result, packed, out, n, p);
  }
}

extern "C" void EPK(to_blocked_f32)(const float *x, int64_t n, int64_t c, int64_t pixels, float *out, Parallel *p) {
  const int64_t blocks = ceil_div(c, BLOCK), runs = ceil_div(pixels, 256);
  parallel_for(p, n * blocks * runs, 8, [=](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t block = i / runs % blocks, image = i / (runs * blocks), pixel = i % runs * 256;
      const int64_t count = min_of<int64_t>(256, pixels - pixel), real = min_of<int64_t>(BLOCK, c - block * BLOCK);
      float *to = out + ((image * blocks + block) * pixels + pixel) * BLOCK;
      if (real < BLOCK) memset(to, 0, (size_t)(count * BLOCK) * 4);
      transpose_matrix(x + (image * c + block * BLOCK) * pixels + pixel, pixels, real, count, to, BLOCK);
    }
  });
}

extern "C" void EPK(from_blocked_f32)(const float *x, int64_t n, int64_t c, int64_t pixels, float *out, Parallel *p) {
  const int64_t blocks = ceil_div(c, BLOCK), runs = ceil_div(pixels, 256);
  parallel_for(p, n * blocks * runs, 8, [=](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t block = i / runs % blocks, image = i / (runs * blocks), pixel = i % runs * 256;
      const int64_t count = min_of<int64_t>(256, pixels - pixel), real = min_of<int64_t>(BLOCK, c - block * BLOCK);
      transpose_matrix(x + ((image * blocks + block) * pixels + pixel) * BLOCK, BLOCK, count, real,
                       out + (image * c + block * BLOCK) * pixels + pixel, pixels);
    }
  });
}
