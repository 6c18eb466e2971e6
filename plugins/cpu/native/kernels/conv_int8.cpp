#include "conv_plan.h"
#include "depthwise_int8.h"
#include "requantise.h"
#include "tile_raw.h"

namespace EPK_NS {
namespace {

struct Header {
  int64_t zeros;  // whether some weights have a zero point: sums over the image are then needed
  int64_t unused[7];
};

int64_t panel_bytes(const ConvPlan &plan) { return (int64_t)sizeof(Columns) + plan.panel_size(0) * 4; }

// One image in blocks of channels, unsigned; padding is the zero point, channels behind the last are 0.
void copy_image(const ConvPlan &plan, const EpkConvInt8 &conv, const uint8_t *x, uint8_t *to, Parallel *p) {
  const EpkConv &c = plan.c;
  const int64_t *size = plan.padded, *low = plan.low;
  const int64_t pixels = plan.in_pixels(), rows = size[0] * size[1], block = plan.block;
  const uint8_t flip = conv.x_signed ? 0x80 : 0, zero = (uint8_t)((uint8_t)conv.x_zero ^ flip);
  parallel_for(p, c.group * plan.blocks * rows, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t piece = i / rows, z = i % rows / size[1] - low[0], y = i % size[1] - low[1];
      const int64_t group = piece / plan.blocks, channel = piece % plan.blocks * block;
      const int64_t real = min_of(block, plan.channels - channel), first = group * plan.channels + channel;
      uint8_t *row = to + i * size[2] * block;
      memset(row, zero, (size_t)(size[2] * block));
      if (z >= 0 && z < c.in[0] && y >= 0 && y < c.in[1]) {
        const int64_t pixel = (z * c.in[1] + y) * c.in[2];
        uint8_t *inside = row + low[2] * block;
        const bool same = c.in_blocked && block == BLOCK && first % BLOCK == 0;
        if (same) {
          const uint8_t *from = x + (first / BLOCK * pixels + pixel) * BLOCK;
          for (int64_t k = 0; k < c.in[2] * BLOCK; k++) inside[k] = from[k] ^ flip;
        }
        for (int64_t j = 0; j < real && !same; j++) {
          const int64_t index = first + j;
          const int64_t step = c.in_blocked ? BLOCK : 1;
          const uint8_t *from = c.in_blocked ? x + (index / BLOCK * pixels + pixel) * BLOCK + index % BLOCK
                                             : x + index * pixels + pixel;
          for (int64_t k = 0; k < c.in[2]; k++) inside[k * block + j] = from[k * step] ^ flip;
        }
      }
      for (int64_t j = real; j < block; j++)
        for (int64_t k = 0; k < size[2]; k++) row[k * block + j] = 0;
    }
  });
}

struct Convolution {
  const ConvPlan &plan;
  const EpkConvInt8 &conv;
  const uint8_t *x;       // one image, padded
  const uint8_t *packed;  // panels
  uint8_t *out;           // one image
  const int64_t *offsets;
  bool zeros;

  // `pixels` outputs of a row (and of the next one) for one panel.
  void tile(int64_t group, int64_t panel, int64_t z, int64_t y, int64_t column, int64_t pixels, bool two) const {
    const EpkConv &c = plan.c;
    const int64_t in_row = plan.padded[2] * plan.unit, in_plane = plan.padded[0] * plan.padded[1] * in_row;
    const uint8_t *weights = packed + (group * plan.panels + panel) * panel_bytes(plan);
    const Columns &columns = *(const Columns *)weights;
    alignas(64) int32_t sums[TILE_ROWS * PANEL];
    TileRaw<MulInt8> t{};
    t.a = (const int32_t *)x + group * plan.blocks * in_plane +
          ((z * c.stride[0] + plan.low[0]) * plan.padded[1] + y * c.stride[1] + plan.low[1]) * in_row +
          (column * c.stride[2] + plan.low[2]) * plan.unit;
    t.a_second = t.a + c.stride[1] * in_row;
    t.a_row = c.stride[2] * plan.unit, t.offsets = offsets, t.blocks = plan.pieces(0), t.steps = plan.steps();
    t.b = (const int32_t *)(weights + sizeof(Columns)), t.b_step = PANEL;
    t.sums = sums, t.two = two, t.rows = (int)pixels * (two ? 2 : 1);
    const int64_t filter = panel * PANEL, width = min_of<int64_t>(PANEL, plan.filters - filter);
    t.vectors = width <= VL ? 1 : 2;
    tile_raw(t);
    const int32_t x_zero = conv.x_signed ? conv.x_zero + 128 : conv.x_zero;
    const int32_t taps = (int32_t)(plan.channels * plan.taps());
    const int64_t corner = (z * c.out[1] + y) * c.out[2] + column;
    if (!zeros && c.out_blocked && result_size(conv.finish.result) == 1 && filter % BLOCK == 0 && plan.c.group == 1 &&
        width % VL == 0) {
      for (int lane = 0; lane < width; lane += VL) write_codes(sums + lane, columns, lane, filter + lane, x_zero, corner, pixels, t.rows);
      return;
    }
    for (int64_t r = 0; r < t.rows; r++) {
      const bool below = r >= pixels;
      int32_t *own = sums + r * PANEL;
      const int32_t total = zeros ? area(below ? t.a_second + (r - pixels) * t.a_row : t.a + r * t.a_row) : 0;
      for (int lane = 0; lane < t.vectors * VL; lane += VL)
        store_as(own + lane, correct(own, columns, lane, x_zero, total, taps));
      const int64_t pixel = corner + (below ? c.out[2] + r - pixels : r);
      write(own, group * plan.filters + filter, width, pixel);
    }
  }

  // A tile's outputs of one vector of filters, whole lanes of a block; the weights have no zero points.
  void write_codes(const int32_t *sums, const Columns &columns, int lane, int64_t filter, int32_t x_zero, int64_t corner,
                   int64_t pixels, int64_t rows) const {
    const EpkRequantise &f = conv.finish;
    vi start = load_as<vi>(columns.total + lane) * -x_zero;
    if (f.bias) start += load_ints(f.bias + filter, VL);
    const vf scale = f.per_column ? load(f.multiplier + filter) : splat(f.multiplier ? f.multiplier[0] : 1.0f);
    const vf offset = f.offset ? load(f.offset + filter) : vf{};
    uint8_t *to = out + (filter / BLOCK * plan.out_pixels() + corner) * BLOCK + filter % BLOCK;
    for (int64_t r = 0; r < rows; r++) {
      const vf value = to_float(load_as<vi>(sums + r * PANEL) + start) * scale + offset;
      store_bytes(to + (r < pixels ? r : plan.c.out[2] + r - pixels) * BLOCK, codes_of(f, value));
    }
  }

  // The sum of the inputs of an output.
  int32_t area(const int32_t *a) const {
    int32_t total = 0;
    for (int64_t i = 0; i < plan.pieces(0); i++) {
      const uint8_t *from = (const uint8_t *)(a + offsets[i]);
      for (int64_t j = 0; j < plan.block; j++) total += from[j];
    }
    return total;
  }

  void write(int32_t *sums, int64_t filter, int64_t n, int64_t pixel) const {
    const int64_t size = result_size(conv.finish.result), pixels = plan.out_pixels();
    alignas(64) uint8_t values[PANEL * 4];
    requantise_row(conv.finish, sums, filter, n, values);
    if (plan.c.out_blocked && filter % BLOCK == 0) {
      for (int64_t i = 0; i < n; i += BLOCK)
        memcpy(out + ((filter + i) / BLOCK * pixels + pixel) * BLOCK * size, values + i * size,
               (size_t)(min_of<int64_t>(BLOCK, n - i) * size));
      return;
    }
    for (int64_t i = 0; i < n; i++) {
      const int64_t index = filter + i;
      const int64_t place = plan.c.out_blocked ? (index / BLOCK * pixels + pixel) * BLOCK + index % BLOCK
                                               : index * pixels + pixel;
      memcpy(out + place * size, values + i * size, (size_t)size);
    }
  }

  void row(int64_t group, int64_t panel, int64_t index, bool two) const {
    const int64_t height = plan.c.out[1], width = plan.c.out[2], tiles = ceil_div(width, TILE_ROWS);
    if (two) return tile(group, panel, index / height, index % height, 0, width, true);
    for (int64_t i = 0; i < tiles; i++) {
      const int64_t column = i * width / tiles;
      tile(group, panel, index / height, index % height, column, (i + 1) * width / tiles - column, false);
    }
  }
};

void convolve(const Convolution &f, Parallel *p) {
  const ConvPlan &plan = f.plan;
  const int64_t height = plan.c.out[1], width = plan.c.out[2], rows = plan.c.out[0] * height;
  const bool flat = rows == 1;  // one long row: tasks are its tiles
  const int64_t tiles = ceil_div(width, TILE_ROWS), items = flat ? tiles : rows;
  if (rows * width == 0) return;
  const int threads = threads_of(p);
  const bool stay = plan.panels * panel_bytes(plan) <= 768 << 10;  // weights in L2 while rows pass
  const int64_t wanted = threads == 1 ? 1 : 4 * threads;
  const int64_t row_chunks = min_of(items, stay ? wanted : ceil_div(wanted, min_of(plan.panels, wanted)));
  const int64_t panel_chunks = min_of(plan.panels, ceil_div(wanted, row_chunks));
  parallel_for(p, plan.c.group * row_chunks * panel_chunks, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t group = i / (row_chunks * panel_chunks), chunk = i / panel_chunks % row_chunks;
      const int64_t first = chunk * items / row_chunks, last = (chunk + 1) * items / row_chunks;
      const int64_t panel = i % panel_chunks * plan.panels / panel_chunks;
      const int64_t end_panel = (i % panel_chunks + 1) * plan.panels / panel_chunks;
      auto one = [&](int64_t q, int64_t r) {
        if (flat) {
          const int64_t column = r * width / tiles;
          f.tile(group, q, 0, 0, column, (r + 1) * width / tiles - column, false);
          return r + 1;
        }
        const bool two = width <= TILE_ROWS / 2 && r + 1 < last && r % height + 1 < height;
        f.row(group, q, r, two);
        return r + 1 + two;
      };
      if (stay) {
        for (int64_t r = first, next; r < last; r = next) {
          next = r + 1;
          for (int64_t q = panel; q < end_panel; q++) next = one(q, r);
        }
      } else {
        for (int64_t q = panel; q < end_panel; q++)
          for (int64_t r = first; r < last;) r = one(q, r);
      }
    }
  });
}

}  // namespace
}  // namespace EPK_NS

using namespace EPK_NS;

extern "C" int64_t EPK(conv_packed_size_int8)(const EpkConvInt8 *c) {
  if (is_depthwise(c->shape)) return depthwise_packed_size(c->shape);
  const ConvPlan plan(c->shape, true);
  return (int64_t)sizeof(Header) + plan.c.group * plan.panels * panel_bytes(plan);
}

extern "C" void EPK(conv_pack_int8)(const EpkConvInt8 *c, const void *weights, int w_signed, const void *w_zero,
                                    int64_t zeros, void *packed, Parallel *p) {
  if (is_depthwise(c->shape)) {
    return depthwise_pack(c->shape, (const uint8_t *)weights, w_signed, (const uint8_t *)w_zero, zeros, packed);
  }
  const ConvPlan plan(c->shape, true);
  const uint8_t flip = w_signed ? 0 : 0x80;
  Header &header = *(Header *)packed;
  header = Header{};
  for (int64_t f = 0; f < plan.c.filters; f++) {
    const uint8_t zero = w_zero ? ((const uint8_t *)w_zero)[zeros > 1 ? f : 0] : 0;
    header.zeros |= (zero ^ flip) != 0;
  }
  const int64_t taps = plan.taps();  // bytes that are written may be anything, so it would be counted anew for each
  parallel_for(p, plan.c.group * plan.panels, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      uint8_t *to = (uint8_t *)packed + sizeof(Header) + i * panel_bytes(plan);
      memset(to, 0, (size_t)panel_bytes(plan));
      Columns &columns = *(Columns *)to;
      to += sizeof(Columns);
      const int64_t group = i / plan.panels, first = i % plan.panels * PANEL;
      const int64_t width = min_of<int64_t>(PANEL, plan.filters - first);
      for (int64_t f = 0; f < width; f++) {
        const int64_t filter = group * plan.filters + first + f;
        const uint8_t zero = w_zero ? ((const uint8_t *)w_zero)[zeros > 1 ? filter : 0] : 0;
        columns.zero[f] = (int8_t)(zero ^ flip);
      }
      plan.visit_pieces(0, [&](int64_t block, int64_t a, int64_t b, int64_t d, int64_t) {
        const int64_t tap = (a * plan.c.kernel[1] + b) * plan.c.kernel[2] + d;
        const int64_t channel = block * plan.block, depth = min_of<int64_t>(plan.block, plan.channels - channel);
        for (int64_t f = 0; f < width; f++) {  // filter by filter: their channels lie side by side
          const int64_t filter = group * plan.filters + first + f;
          const uint8_t *from = (const uint8_t *)weights + (filter * plan.channels + channel) * taps + tap;
          int32_t total = 0;
          for (int64_t s = 0; s < depth; s++) {
            const uint8_t value = from[s * taps] ^ flip;
            to[(s / 4 * PANEL + f) * 4 + s % 4] = value;
            total += (int8_t)value;
          }
          columns.total[f] += total;
        }
        to += plan.block * PANEL;
      });
    }
  });
}

// Whether the image must be copied: signed bytes are, to be made unsigned.
static bool copies(const ConvPlan &plan, const EpkConvInt8 *c) { return plan.copy_in || c->x_signed; }

extern "C" int64_t EPK(conv_scratch_int8)(const EpkConvInt8 *c, int threads) {
  const ConvPlan plan(c->shape, true);
  if (!plan.possible()) return -1;
  if (is_depthwise(plan.c)) return depthwise_scratch(plan, threads);
  const int64_t image = plan.c.group * plan.blocks * plan.block * plan.padded[0] * plan.padded[1] * plan.padded[2];
  return plan.table_size * 4 + (copies(plan, c) ? round_up(image, 64) : 0);
}

extern "C" void EPK(conv_int8)(const EpkConvInt8 *c, const void *x, const void *packed, void *out, void *scratch,
                               Parallel *p) {
  const ConvPlan plan(c->shape, true);
  const EpkConv &shape = plan.c;
  int64_t *table = (int64_t *)scratch, *entry = table;
  if (!is_depthwise(shape)) plan.visit_pieces(0, [&](int64_t, int64_t, int64_t, int64_t, int64_t offset) { *entry++ = offset; });
  uint8_t *image = (uint8_t *)scratch + plan.table_size * 4;
  const int64_t x_size = (shape.in_blocked ? round_up(shape.channels, BLOCK) : shape.channels) * plan.in_pixels();
  const int64_t filters = shape.out_blocked ? round_up(shape.filters, BLOCK) : shape.filters;
  const int64_t out_size = filters * plan.out_pixels() * result_size(c->finish.result);
  for (int64_t n = 0; n < shape.n; n++) {
    const uint8_t *from = (const uint8_t *)x + n * x_size;
    uint8_t *to = (uint8_t *)out + n * out_size;
    const bool depthwise = is_depthwise(shape);
    if (!depthwise && copies(plan, c)) copy_image(plan, *c, from, image, p);
    if (shape.out_blocked && shape.filters % BLOCK) {
      const int64_t block = plan.out_pixels() * BLOCK * result_size(c->finish.result);
      memset(to + shape.filters / BLOCK * block, 0, (size_t)block);
    }
    if (depthwise) {
      depthwise_int8(plan, *c, from, packed, to, scratch, p);
      continue;
    }
    convolve({plan, *c, copies(plan, c) ? image : from, (const uint8_t *)packed + sizeof(Header), to, table,
              ((const Header *)packed)->zeros != 0}, p);
  }
}
