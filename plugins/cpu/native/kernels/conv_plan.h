// How a convolution is cut: phases, padding, panels of filters.
#pragma once
#include "conv.h"
#include "tile.h"

namespace EPK_NS {

// A transposed convolution of stride s is s phases in each dimension, each of them a plain convolution of stride 1
// over every s-th output; a plain convolution is one phase.
struct ConvPlan {
  EpkConv c;
  int64_t channels, filters;       // of a group
  bool depthwise;                  // one channel and one filter to a group: a kernel of its own
  int64_t winograd;                // outputs down and across a tile, or 0: direct
  bool planar;                     // few channels to a group: reduce along image rows, not channel blocks
  int64_t blocks;                  // pieces of channels in a group: channel blocks, or channels where planar
  int64_t block;                   // channels in a piece
  int64_t unit;                    // lanes of a pixel of a piece: floats, or four bytes each
  int64_t panels, padded_filters;  // of a group
  int64_t phases;
  int64_t low[3], padded[3];       // padding before, and size with padding
  bool copy_in, copy_out;          // through scratch memory
  int64_t in_size, out_size;       // elements of scratch for one image
  int64_t table_size;              // offsets of all phases, in floats

  // `bytes`: of 8-bit integers, four channels to a lane; without depthwise and planar reductions.
  explicit ConvPlan(const EpkConv &conv, bool bytes = false) : c(conv) {
    flatten();
    channels = c.channels / c.group, filters = c.filters / c.group;
    depthwise = !bytes && channels == 1 && filters == 1 && !c.transposed && c.group > 1;
    winograd = !bytes && can_winograd() ? c.winograd : 0;
    planar = !winograd && !bytes && channels % BLOCK != 0 && (channels < BLOCK || c.group > 1);
    block = planar ? 1 : bytes && channels <= 4 ? 4 : BLOCK;
    unit = bytes ? block / 4 : block;
    blocks = ceil_div(channels, block);
    padded_filters = round_up(filters, BLOCK);
    panels = ceil_div(bytes ? filters : padded_filters, PANEL);
    phases = c.transposed ? c.stride[0] * c.stride[1] * c.stride[2] : 1;
    pad();
    for (int d = 0; winograd && d < 3; d++) low[d] = 0, padded[d] = c.in[d];  // its tiles know the borders
    const bool padding = padded[0] != c.in[0] || padded[1] != c.in[1] || padded[2] != c.in[2];
    copy_in = padding || (planar ? c.in_blocked : !c.in_blocked) || (bytes && (block != BLOCK || channels % BLOCK != 0));
    copy_out = !c.out_blocked || (c.group > 1 && filters % BLOCK != 0);
    in_size = out_size = table_size = 0;
    if (!possible()) return;
    in_size = copy_in ? c.group * blocks * unit * padded[0] * padded[1] * padded[2] : 0;
    out_size = copy_out ? c.group * padded_filters * out_pixels() : 0;
    if (depthwise) {
      in_size = c.in_blocked ? 0 : round_up(c.channels, BLOCK) * in_pixels();
      out_size = c.out_blocked ? 0 : round_up(c.filters, BLOCK) * out_pixels();
    }
    for (int64_t p = 0; p < phases && !winograd; p++) table_size += pieces(p);
    table_size = round_up(2 * table_size, 16);
  }

  // Whether what the convolution needs has a size that memory could have; numbers in a model may be any.
  bool possible() const {
    constexpr double MOST = 1e15;
    const double image = (double)c.group * (double)blocks * (double)block;
    const double result = (double)c.group * (double)padded_filters * (double)out_pixels();
    return image * (double)padded[0] * (double)padded[1] * (double)padded[2] < MOST && result < MOST;
  }

  bool can_winograd() const {
    for (int d = 0; d < 3; d++)
      if (c.kernel[d] != (d ? 3 : 1) || c.stride[d] != 1 || c.dilation[d] != 1) return false;
    return (c.winograd == 2 || c.winograd == 4) && c.group == 1 && !c.transposed && c.pad[0] == 0;
  }

  int64_t in_pixels() const { return c.in[0] * c.in[1] * c.in[2]; }
  int64_t out_pixels() const { return c.out[0] * c.out[1] * c.out[2]; }
  int64_t taps() const { return c.kernel[0] * c.kernel[1] * c.kernel[2]; }

  // A 1x1 convolution has one long image row.
  void flatten() {
    for (int d = 0; d < 3; d++)
      if (c.kernel[d] != 1 || c.stride[d] != 1 || c.pad[d] != 0 || c.in[d] != c.out[d]) return;
    c.in[2] = c.out[2] = c.in[0] * c.in[1] * c.in[2];
    c.in[0] = c.in[1] = c.out[0] = c.out[1] = 1;
  }

  int64_t phase_of(int64_t phase, int d) const {
    if (!c.transposed) return 0;
    return d == 2 ? phase % c.stride[2] : d == 1 ? phase / c.stride[2] % c.stride[1] : phase / (c.stride[1] * c.stride[2]);
  }
  int64_t in_step(int d) const { return c.transposed ? 1 : c.stride[d]; }
  int64_t out_step(int d) const { return c.transposed ? c.stride[d] : 1; }
  // Outputs of a phase in a dimension.
  int64_t count(int64_t phase, int d) const {
    return max_of<int64_t>(0, ceil_div(c.out[d] - phase_of(phase, d), out_step(d)));
  }
  // Whether tap k takes part in a phase, and its distance from the output's pixel in the input.
  bool tap(int64_t phase, int d, int64_t k, int64_t &shift) const {
    if (!c.transposed) {
      shift = k * c.dilation[d] - c.pad[d];
      return true;
    }
    const int64_t distance = phase_of(phase, d) + c.pad[d] - c.dilation[d] * k;
    shift = distance / c.stride[d];
    return distance % c.stride[d] == 0;
  }
  int64_t taps_of(int64_t phase, int d) const {
    int64_t found = 0, shift;
    for (int64_t k = 0; k < c.kernel[d]; k++) found += tap(phase, d, k, shift);
    return found;
  }
  // Taps along a row are one piece where they are neighbours.
  bool row_pieces() const { return planar && !c.transposed && c.dilation[2] == 1; }
  int64_t steps() const { return planar ? (row_pieces() ? c.kernel[2] : 1) : unit; }
  int64_t pieces(int64_t phase) const {
    return blocks * taps_of(phase, 0) * taps_of(phase, 1) * (row_pieces() ? 1 : taps_of(phase, 2));
  }
  int64_t panel_size(int64_t phase) const { return pieces(phase) * steps() * PANEL; }

  // visit(block, k0, k1, k2, offset) for every piece of a phase, in the order of the packed weights.
  template <class Visit> void visit_pieces(int64_t phase, const Visit &visit) const {
    int64_t z, y, x;
    for (int64_t b = 0; b < blocks; b++)
      for (int64_t i = 0; i < c.kernel[0]; i++) {
        if (!tap(phase, 0, i, z)) continue;
        for (int64_t j = 0; j < c.kernel[1]; j++) {
          if (!tap(phase, 1, j, y)) continue;
          for (int64_t k = 0; k < (row_pieces() ? 1 : c.kernel[2]); k++) {
            if (!tap(phase, 2, k, x)) continue;
            visit(b, i, j, k, (((b * padded[0] + z) * padded[1] + y) * padded[2] + x) * unit);
          }
        }
      }
  }

 private:
  void pad() {
    for (int d = 0; d < 3; d++) {
      int64_t least = 0, most = c.in[d] - 1, shift;
      for (int64_t p = 0; p < phases; p++)
        for (int64_t k = 0; k < c.kernel[d]; k++) {
          if (!tap(p, d, k, shift) || count(p, d) == 0) continue;
          least = min_of(least, shift);
          most = max_of(most, shift + (count(p, d) - 1) * in_step(d));
        }
      low[d] = -least;
      padded[d] = most + 1 - least;
    }
  }
};

// depthwise.cpp
void depthwise(const ConvPlan &plan, const float *x, const float *packed, float *out, Parallel *p);

}  // namespace EPK_NS
