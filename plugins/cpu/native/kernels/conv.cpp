#include "conv_copy.h"
#include "conv_shuffle.h"
#include "denormal.h"

#include "tile_f32.h"
#include "transpose.h"
#include "winograd.h"

namespace EPK_NS {
namespace {

struct Convolution {
  const ConvPlan &plan;
  const float *x;        // one image, padded; or the strip of it that begins at row `top`
  const float *bias, *weights;
  float *out;            // one image, blocked by groups
  const float *add;      // as out, or null
  bool raw;              // without the epilogue
  const int64_t *table;
  int64_t top;

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
          ((at.z * plan.in_step(0) + plan.low[0]) * plan.padded[1] + at.y * plan.in_step(1) + plan.low[1] - top) * in_row +
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

// An image that is not padded yet, strip by strip; `f` has the plan of a strip.
void convolve_strips(const Convolution &f, const ConvPlan &image, const Strips &strips, float *scratch, Parallel *p) {
  const int64_t out_rows = image.c.out[1], step = image.in_step(1);
  const int64_t unit = image.c.out[2] <= TILE_ROWS / 2 ? 2 : 1, size = f.plan.panel_size(0);
  parallel_for(p, ceil_div(out_rows, strips.rows), 1, [&](int64_t begin, int64_t end, int thread) {
    const FlushDenormals flush;
    Convolution own = f;
    float *strip = scratch + thread * strips.size;
    for (int64_t i = begin; i < end; i++) {
      const int64_t first = i * strips.rows, last = min_of(out_rows, first + strips.rows);
      own.x = strip, own.top = first * step;
      copy_strip(image, strips, f.x, own.top, own.top + strips.height - (first + strips.rows - last) * step, strip);
      for (int64_t r = first; r < last; r += unit)
        for (int64_t q = 0; q < image.panels; q++)
          own.rows(0, 0, q, r, min_of(r + unit, last), f.weights + q * size, f.table);
    }
  });
}

int64_t weights_size(const ConvPlan &plan) {
  if (plan.depthwise) return round_up(plan.c.filters, BLOCK) * plan.taps();
  if (plan.winograd) return winograd_packed_size(plan);
  int64_t size = 0;
  for (int64_t phase = 0; phase < plan.phases; phase++) size += plan.panels * plan.panel_size(phase);
  return plan.c.group * size;
}

// Elements of scratch for the padded image, or its strips.
int64_t image_size(const ConvPlan &plan, int threads) {
  const Strips strips(plan, threads);
  return strips.rows ? threads * strips.size : round_up(plan.in_size, 16);
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
  if (is_shuffle(*c)) return shuffle_packed_size(*c);
  const ConvPlan plan(*c);
  return (bias_size(plan) + weights_size(plan)) * 4;
}

extern "C" void EPK(conv_pack_f32)(const EpkConv *c, const float *weights, const float *bias, float *packed,
                                   Parallel *p) {
  if (is_shuffle(*c)) return shuffle_pack(*c, weights, bias, packed, p);
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
  if (is_shuffle(*c)) return shuffle_scratch(*c, threads);
  const ConvPlan plan(*c);
  if (!plan.possible()) return -1;
  const int64_t work = plan.winograd ? winograd_scratch(plan, threads) : plan.table_size;
  return (work + image_size(plan, threads) + round_up(plan.out_size, 16)) * 4;
}

extern "C" void EPK(conv_f32)(const EpkConv *c, const float *x, const float *packed, float *out, void *scratch,
                              Parallel *p) {
  if (is_shuffle(*c)) return shuffle(*c, x, packed, out, scratch, p);
  const ConvPlan plan(*c);
  float *image = (float *)scratch, *result = image + image_size(plan, threads_of(p));
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
  const Strips strips(plan, threads_of(p));
  ConvPlan own = plan;
  if (strips.rows) own.padded[1] = strips.height;
  int64_t *entry = table;
  for (int64_t phase = 0; phase < plan.phases && !plan.winograd; phase++)
    own.visit_pieces(phase, [&](int64_t, int64_t, int64_t, int64_t, int64_t offset) { *entry++ = offset; });
  for (int64_t n = 0; n < c->n; n++) {
    const bool whole = plan.copy_in && !strips.rows;
    if (whole) copy_image(plan, x + n * x_size, image, p);
    Convolution f{own, whole ? image : x + n * x_size, packed, packed + bias_size(plan),
                  plan.copy_out ? result : out + n * out_size, nullptr, plan.copy_out, table, 0};
    if (!plan.copy_out && c->epilogue.add) f.add = c->epilogue.add + n * out_size;
    if (plan.winograd) winograd(plan, f.x, f.weights, packed, f.add, f.raw, f.out, work, p);
    else if (strips.rows) convolve_strips(f, plan, strips, image, p);
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
