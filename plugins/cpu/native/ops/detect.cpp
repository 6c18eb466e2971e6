// NonMaxSuppression.
#include "ops.h"

namespace EPK_NS {
namespace {

struct Box {
  float low[2], high[2], area;
};

float smaller(float a, float b) { return (a < b) | (a != a) ? a : b; }
float larger(float a, float b) { return (a > b) | (a != a) ? a : b; }

Box box_of(const float *p, bool centered) {
  Box box;
  for (int i = 0; i < 2; i++) {
    box.low[i] = centered ? p[i] - p[i + 2] / 2 : smaller(p[i], p[i + 2]);
    box.high[i] = centered ? p[i] + p[i + 2] / 2 : larger(p[i], p[i + 2]);
  }
  box.area = (box.high[0] - box.low[0]) * (box.high[1] - box.low[1]);
  return box;
}

bool overlap(const Box &a, const Box &b, float most) {
  float shared = 1;
  for (int i = 0; i < 2; i++) {
    const float extent = smaller(a.high[i], b.high[i]) - larger(a.low[i], b.low[i]);
    shared *= extent < 0 ? 0 : extent;
  }
  return shared / (a.area + b.area - shared) > most;
}

// Indices in the order of their scores, the greatest first, NaN last; of equals the lower index. Merges runs.
int64_t *sorted(const float *scores, int64_t *order, int64_t *spare, int64_t n) {
  const auto after = [&](int64_t a, int64_t b) {
    const float x = scores[a], y = scores[b];
    return y > x || (x != x && y == y);
  };
  for (int64_t run = 1; run < n; run *= 2) {
    for (int64_t begin = 0; begin < n; begin += 2 * run) {
      const int64_t middle = min_of(begin + run, n), end = min_of(begin + 2 * run, n);
      int64_t i = begin, j = middle;
      for (int64_t k = begin; k < end; k++) spare[k] = j >= end || (i < middle && !after(order[i], order[j])) ? order[i++] : order[j++];
    }
    int64_t *swap = order;
    order = spare, spare = swap;
  }
  return order;
}

struct Suppression {
  int64_t limit;
  float most;
  bool has_least;
  float least;

  // The boxes that stay, best first; how many.
  int64_t run(const Box *boxes, const float *scores, int64_t n, int64_t *order, int64_t *spare, int64_t *chosen) const {
    int64_t candidates = 0, count = 0;
    for (int64_t i = 0; i < n; i++)
      if (!has_least || scores[i] > least) order[candidates++] = i;
    const int64_t *best = sorted(scores, order, spare, candidates);
    for (int64_t c = 0; c < candidates && count < limit; c++) {
      bool stays = true;
      for (int64_t k = 0; k < count && stays; k++) stays = !overlap(boxes[best[c]], boxes[chosen[k]], most);
      if (stays) chosen[count++] = best[c];
    }
    return count;
  }
};

bool number(const DLTensor *in, int n_in, int index, float &value) {
  if (index >= n_in || absent(in[index])) return false;
  value = *static_cast<const float *>(in[index].data);
  return true;
}

}  // namespace

// Attributes: whether boxes are given by their centers. Inputs: boxes [n, b, 4], scores [n, c, b], most boxes of a
// class, threshold of the overlap, of the score.
EPK_OPERATOR(non_max_suppression) {
  const bool centered = *static_cast<const int64_t *>(attributes) != 0;
  const DLTensor &boxes = in[0], &scores = in[1];
  if (boxes.ndim != 3 || scores.ndim != 3 || boxes.shape[2] != 4 || scores.shape[0] != boxes.shape[0] || scores.shape[2] != boxes.shape[1]) return EPK_UNSUPPORTED;
  for (int i = 2; i < n_in; i++)
    if (!absent(in[i]) && epk_size(&in[i]) != 1) return EPK_UNSUPPORTED;
  Suppression how{0, 0.0f, false, 0.0f};
  if (n_in > 2 && !absent(in[2])) how.limit = *static_cast<const int64_t *>(in[2].data);
  number(in, n_in, 3, how.most);
  how.has_least = number(in, n_in, 4, how.least);
  if (!(how.most >= 0 && how.most <= 1)) return EPK_UNSUPPORTED;
  const int64_t batch = boxes.shape[0], n = boxes.shape[1], classes = scores.shape[1], rows = batch * classes;
  const int64_t most = max_of<int64_t>(0, min_of(how.limit, n)), threads = ctx->threads;
  auto *all = static_cast<Box *>(ctx->scratch(ctx, size_t(batch * n) * sizeof(Box) + 64));
  auto *chosen = static_cast<int64_t *>(ctx->scratch(ctx, size_t(rows * (most + 1)) * 8 + 64));
  auto *orders = static_cast<int64_t *>(ctx->scratch(ctx, size_t(threads * n) * 16 + 64));
  if (!all || !chosen || !orders) return EPK_FAILED;
  int64_t *counts = chosen + rows * most, total = 0;
  for (int64_t i = 0; i < batch * n; i++) all[i] = box_of(static_cast<const float *>(boxes.data) + 4 * i, centered);
  in_parallel(ctx, rows, grain_of(ctx, rows, ceil_div(16384, n + 1)), [&](int64_t begin, int64_t end, int thread) {
    int64_t *order = orders + thread * 2 * n;
    for (int64_t r = begin; r < end; r++)
      counts[r] = how.run(all + r / classes * n, static_cast<const float *>(scores.data) + r * n, n, order, order + n, chosen + r * most);
  });
  for (int64_t r = 0; r < rows; r++) total += counts[r];
  const int64_t dims[2] = {total, 3};
  auto *y = static_cast<int64_t *>(ctx->output(ctx, 0, 2, dims));
  if (!y) return EPK_FAILED;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t k = 0; k < counts[r]; k++, y += 3) y[0] = r / classes, y[1] = r % classes, y[2] = chosen[r * most + k];
  return EPK_OK;
}

}  // namespace EPK_NS
