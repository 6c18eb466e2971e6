// GridSample of images: interpolation at positions that are a tensor.
#include "ops.h"

namespace EPK_NS {
namespace {

struct GridAttributes {
  int64_t mode;     // nearest, linear, cubic
  int64_t padding;  // zeros, border, reflection
  int64_t align_corners;
};
enum { ZEROS, BORDER, REFLECTION };

struct Taps {
  int64_t index[4];
  float weight[4];
};

double keys_kernel(double d) {
  constexpr double a = -0.75;
  return d <= 1 ? ((a + 2) * d - (a + 3)) * d * d + 1 : ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
}

// One axis of the image.
struct Line {
  int64_t size;
  const GridAttributes &how;

  double back(double at) const {
    const double last = double(size - 1), low = how.align_corners ? 0.0 : -0.5;
    if (how.padding == ZEROS) return at;
    if (how.padding == REFLECTION) {
      const double span = last - 2 * low, offset = span != 0 ? __builtin_fmod(__builtin_fabs(at - low), 2 * span) : 0.0;
      at = low + (offset < 2 * span - offset ? offset : 2 * span - offset);
    }
    return at < 0 ? 0 : at > last ? last : at;
  }

  void tap(double at, double weight, int k, Taps &taps) const {
    const double last = double(size - 1);
    taps.index[k] = int64_t(at < 0 ? 0 : at > last ? last : at);
    taps.weight[k] = at >= 0 && at <= last ? float(weight) : 0.0f;
  }

  // The values that count for a place in [-1, 1]; how many.
  int taps_of(float place, Taps &taps) const {
    constexpr double FAR = 1e9;
    double at = place;
    at = at != at ? -FAR : at < -FAR ? -FAR : at > FAR ? FAR : at;
    at = (how.align_corners ? (at + 1) * double(size - 1) : (at + 1) * double(size) - 1) / 2;
    if (how.mode == 0) {
      tap(__builtin_rint(back(at)), 1.0, 0, taps);
      return 1;
    }
    const double below = __builtin_floor(at), rest = at - below;
    const int count = how.mode == 1 ? 2 : 4, first = how.mode == 1 ? 0 : -1;
    for (int k = 0; k < count; k++) {
      const double distance = __builtin_fabs(rest - (first + k));
      tap(back(below + first + k), how.mode == 1 ? 1 - distance : keys_kernel(distance), k, taps);
    }
    return count;
  }
};

}  // namespace

// Inputs: x [n, c, h, w], grid [n, h', w', 2].
EPK_OPERATOR(grid_sample) {
  const auto &how = *static_cast<const GridAttributes *>(attributes);
  const DLTensor &x = in[0], &grid = in[1];
  if (x.ndim != 4 || grid.ndim != 4 || grid.shape[0] != x.shape[0] || grid.shape[3] != 2) return EPK_UNSUPPORTED;
  const int64_t channels = x.shape[1], pixels = x.shape[2] * x.shape[3], places = grid.shape[1] * grid.shape[2];
  const int64_t dims[4] = {x.shape[0], channels, grid.shape[1], grid.shape[2]};
  auto *y = static_cast<float *>(ctx->output(ctx, 0, 4, dims));
  if (!y) return EPK_FAILED;
  if (epk_size(&out[0]) == 0) return EPK_OK;
  if (pixels == 0) return EPK_UNSUPPORTED;
  const auto *from = static_cast<const float *>(x.data), *at = static_cast<const float *>(grid.data);
  const Line down{x.shape[2], how}, across{x.shape[3], how};
  const int64_t count = x.shape[0] * places;
  in_parallel(ctx, count, grain_of(ctx, count, ceil_div(4096, channels)), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      Taps rows, columns;
      const int n_columns = across.taps_of(at[2 * i], columns), n_rows = down.taps_of(at[2 * i + 1], rows);
      int64_t offset[16];
      float weight[16];
      int n = 0;
      for (int r = 0; r < n_rows; r++)
        for (int c = 0; c < n_columns; c++) {
          const float share = rows.weight[r] * columns.weight[c];
          if (share == 0) continue;  // what is outside does not spread an infinity
          offset[n] = rows.index[r] * x.shape[3] + columns.index[c], weight[n++] = share;
        }
      const float *image = from + i / places * channels * pixels;
      float *to = y + i / places * channels * places + i % places;
      for (int64_t c = 0; c < channels; c++) {
        float sum = 0;
        for (int k = 0; k < n; k++) sum += image[c * pixels + offset[k]] * weight[k];
        to[c * places] = sum;
      }
    }
  });
  return EPK_OK;
}

}  // namespace EPK_NS
