#include "depthwise_int8.h"

#include "requantise.h"

namespace EPK_NS {
namespace {

// n elements of a row to every BLOCK-th place.
template <class T> void spread(const void *from, void *to, int64_t n) {
  for (int64_t i = 0; i < n; i++) ((T *)to)[i * BLOCK] = ((const T *)from)[i];
}

int32_t byte_of(uint8_t value, int is_signed) { return is_signed ? (int8_t)value : value; }

constexpr int64_t LANES = 16;  // sums are made so many at a time, also behind the end of a row

// Scratch of a thread: the padded channel, each of its rows by phases of the stride, so that what neighbouring outputs
// read lies together; then sums, offsets and results of a row of outputs.
struct Room {
  int64_t phase, row, image, line;  // columns of a phase, of a row; int16 of the image; outputs of a row
  explicit Room(const ConvPlan &plan) {
    phase = ceil_div(plan.padded[2], plan.c.stride[2]) + 1;
    row = phase * plan.c.stride[2];
    line = round_up(plan.c.out[2], LANES);
    image = round_up(plan.padded[0] * plan.padded[1] * row + line, 32);  // the last lanes of a line may read behind it
  }
  int64_t bytes() const { return image * 2 + line * 12; }
};

struct Channel {
  const ConvPlan &plan;
  const EpkConvInt8 &conv;
  const Room &room;
  int16_t *image;

  // Planar or blocked bytes less their zero point, with zeros around.
  void load_image(const uint8_t *x, int64_t step) const {
    const EpkConv &c = plan.c;
    memset(image, 0, (size_t)room.image * 2);
    for (int64_t z = 0; z < c.in[0]; z++)
      for (int64_t y = 0; y < c.in[1]; y++) {
        const int64_t to_z = z + plan.low[0], to_y = y + plan.low[1];
        if (to_z < 0 || to_z >= plan.padded[0] || to_y < 0 || to_y >= plan.padded[1]) continue;
        int16_t *to = image + (to_z * plan.padded[1] + to_y) * room.row;
        const uint8_t *from = x + (z * c.in[1] + y) * c.in[2] * step;
        const int64_t begin = max_of<int64_t>(0, -plan.low[2]), end = min_of(c.in[2], plan.padded[2] - plan.low[2]);
        const int64_t s = c.stride[2];
        const uint8_t flip = conv.x_signed ? 0x80 : 0;  // a signed byte is the flipped one less 128
        const int32_t zero = conv.x_zero + (conv.x_signed ? 128 : 0);
        if (s == 1 && step == 1) {
          for (int64_t i = begin; i < end; i++) to[i + plan.low[2]] = (int16_t)((from[i] ^ flip) - zero);
          continue;
        }
        for (int64_t first = 0; first < s; first++) {  // a phase: every s-th column of the padded row
          int64_t at = begin + plan.low[2];
          at += (first - at % s + s) % s;
          int16_t *phase = to + first * room.phase;
          int64_t place = at / s;
          for (int64_t i = at - plan.low[2]; i < end; i += s) phase[place++] = (int16_t)((from[i * step] ^ flip) - zero);
        }
      }
  }

  const int16_t *at(int64_t row, int64_t k) const {
    const EpkConv &c = plan.c;
    const int64_t place = k * c.dilation[2] - c.pad[2] + plan.low[2];
    return image + row * room.row + place % c.stride[2] * room.phase + place / c.stride[2];
  }

  // A row of sums.
  void sum(const int16_t *weights, int32_t bias, int64_t z, int64_t y, int32_t *sums) const {
    const EpkConv &c = plan.c;
    const int64_t n = room.line;
    for (int64_t i = 0; i < n; i++) sums[i] = bias;
    for (int64_t a = 0; a < c.kernel[0]; a++)
      for (int64_t b = 0; b < c.kernel[1]; b++) {
        const int64_t row_z = z * c.stride[0] + a * c.dilation[0] - c.pad[0] + plan.low[0];
        const int64_t row_y = y * c.stride[1] + b * c.dilation[1] - c.pad[1] + plan.low[1], row = row_z * plan.padded[1] + row_y;
        const int16_t *w = weights + (a * c.kernel[1] + b) * c.kernel[2];
        int64_t k = 0;
        for (; k + 3 <= c.kernel[2]; k += 3) {
          const int16_t *p = at(row, k), *q = at(row, k + 1), *r = at(row, k + 2);
          const int32_t u = w[k], v = w[k + 1], t = w[k + 2];
          for (int64_t i = 0; i < n; i += LANES)
            for (int64_t l = i; l < i + LANES; l++) sums[l] += u * p[l] + v * q[l] + t * r[l];
        }
        for (; k < c.kernel[2]; k++) {
          const int16_t *p = at(row, k);
          const int32_t u = w[k];
          for (int64_t i = 0; i < n; i += LANES)
            for (int64_t l = i; l < i + LANES; l++) sums[l] += u * p[l];
        }
      }
  }
};

}  // namespace

int64_t depthwise_packed_size(const EpkConv &c) { return c.filters * c.kernel[0] * c.kernel[1] * c.kernel[2] * 2 + 64; }

void depthwise_pack(const EpkConv &c, const uint8_t *weights, int w_signed, const uint8_t *w_zero, int64_t zeros, void *packed) {
  const int64_t taps = c.kernel[0] * c.kernel[1] * c.kernel[2];
  int16_t *to = (int16_t *)packed;
  memset(packed, 0, (size_t)depthwise_packed_size(c));
  for (int64_t i = 0; i < c.filters * taps; i++) {
    const int32_t zero = w_zero ? byte_of(w_zero[zeros > 1 ? i / taps : 0], w_signed) : 0;
    to[i] = (int16_t)(byte_of(weights[i], w_signed) - zero);
  }
}

int64_t depthwise_scratch(const ConvPlan &plan, int threads) { return Room(plan).bytes() * threads; }

void depthwise_int8(const ConvPlan &plan, const EpkConvInt8 &conv, const uint8_t *x, const void *packed, uint8_t *out,
                    void *scratch, Parallel *p) {
  const EpkConv &c = plan.c;
  const Room room(plan);
  const int64_t size = result_size(conv.finish.result), in = plan.in_pixels(), pixels = plan.out_pixels(), n = c.out[2];
  const auto place = [](bool blocked, int64_t channel, int64_t count) {
    return blocked ? channel / BLOCK * count * BLOCK + channel % BLOCK : channel * count;
  };
  const int64_t grain = max_of<int64_t>(1, 16384 / (pixels * plan.taps() + 1));
  parallel_for(p, c.channels, grain, [&](int64_t begin, int64_t end, int thread) {
    auto *image = (int16_t *)((uint8_t *)scratch + thread * room.bytes());
    auto *sums = (int32_t *)(image + room.image);
    auto *offsets = (float *)(sums + room.line);
    auto *values = (uint8_t *)(offsets + room.line);
    const Channel channel{plan, conv, room, image};
    for (int64_t f = begin; f < end; f++) {
      channel.load_image(x + place(c.in_blocked, f, in), c.in_blocked ? BLOCK : 1);
      EpkRequantise finish = conv.finish;  // a row of outputs in the place of a row of filters
      finish.bias = nullptr, finish.per_column = 0;
      if (conv.finish.per_column && finish.multiplier) finish.multiplier += f;
      if (conv.finish.offset) {
        for (int64_t i = 0; i < n; i++) offsets[i] = conv.finish.offset[f];
        finish.offset = offsets;
      }
      uint8_t *to = out + place(c.out_blocked, f, pixels) * size;
      for (int64_t r = 0; r < c.out[0] * c.out[1]; r++) {
        channel.sum((const int16_t *)packed + f * plan.taps(), conv.finish.bias ? conv.finish.bias[f] : 0, r / c.out[1], r % c.out[1], sums);
        if (!c.out_blocked) {
          requantise_row(finish, sums, 0, n, to + r * n * size);
          continue;
        }
        requantise_row(finish, sums, 0, n, values);
        if (size == 1) spread<uint8_t>(values, to + r * n * BLOCK, n);
        else spread<uint32_t>(values, to + r * n * BLOCK * 4, n);
      }
    }
  });
}

}  // namespace EPK_NS
