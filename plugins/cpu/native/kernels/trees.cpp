#include "trees.h"

namespace EPK_NS {
namespace {

constexpr int LANES = 16;  // pairs of a row and a tree that are walked together: their misses overlap
constexpr int ROWS = 64;   // rows that see a tree while it is in the cache

// The leaves (as ~leaf) of `rows` rows in each of `trees` trees; together at most LANES.
template <class T>
void walk(const EpkTrees<T> &t, const int32_t *roots, int64_t trees, const T *x, int64_t rows, int32_t *at) {
  const T *from[LANES];
  bool moved = false;
  for (int64_t i = 0, lane = 0; i < trees; i++) {
    moved |= roots[i] >= 0;
    for (int64_t r = 0; r < rows; r++, lane++) at[lane] = roots[i], from[lane] = x + r * t.features;
  }
  while (moved) {
    moved = false;
    for (int64_t i = 0; i < trees * rows; i++) {
      if (at[i] < 0) continue;
      const EpkTreeNode<T> &node = t.nodes[at[i]];
      const T value = from[i][node.feature];
      at[i] = node.child[int(value <= node.threshold) + 2 * int(value >= node.threshold)];
      moved |= at[i] >= 0;
    }
  }
}

template <int REDUCTION, class T> void vote(T &value, T weight) {
  if (REDUCTION == EPK_VOTES_SUM) value += weight;
  else if (REDUCTION == EPK_VOTES_MIN) value = weight < value ? weight : value;
  else value = weight > value ? weight : value;
}

template <int REDUCTION, class T> void add(const EpkTrees<T> &t, int32_t leaf, T *out) {
  if (t.table) {
    const T *votes = t.table + leaf * t.columns;
    for (int64_t c = 0; c < t.columns; c++) vote<REDUCTION>(out[c], votes[c]);
    return;
  }
  for (int32_t i = t.leaf_begin[leaf]; i < t.leaf_begin[leaf + 1]; i++)
    vote<REDUCTION>(out[t.entry_column[i]], t.entry_weight[i]);
}

template <int REDUCTION, class T>
void forest(const EpkTrees<T> &t, const T *x, T *out, int64_t rows, Parallel *p) {
  const T start = REDUCTION == EPK_VOTES_SUM ? T(0) : REDUCTION == EPK_VOTES_MIN ? T(__builtin_inf()) : -T(__builtin_inf());
  parallel_for(p, ceil_div(rows, ROWS), 1, [&](int64_t begin, int64_t end, int) {
    int32_t at[LANES];
    for (int64_t first = begin * ROWS; first < min_of(rows, end * ROWS); first += ROWS) {
      const int64_t count = min_of<int64_t>(ROWS, rows - first), together = max_of<int64_t>(1, LANES / count);
      for (int64_t i = 0; i < count * t.columns; i++) out[first * t.columns + i] = start;
      for (int64_t tree = 0; tree < t.trees; tree += together) {
        const int64_t trees = min_of(together, t.trees - tree);
        for (int64_t r = first; r < first + count; r += LANES) {
          const int64_t few = min_of<int64_t>(LANES, first + count - r);
          walk(t, t.roots + tree, trees, x + r * t.features, few, at);
          for (int64_t i = 0; i < trees * few; i++) add<REDUCTION>(t, ~at[i], out + (r + i % few) * t.columns);
        }
      }
    }
  });
}

template <class T> void forest(const EpkTrees<T> &t, const T *x, T *out, int64_t rows, Parallel *p) {
  if (t.reduction == EPK_VOTES_SUM) forest<EPK_VOTES_SUM>(t, x, out, rows, p);
  else if (t.reduction == EPK_VOTES_MIN) forest<EPK_VOTES_MIN>(t, x, out, rows, p);
  else forest<EPK_VOTES_MAX>(t, x, out, rows, p);
}

}  // namespace
}  // namespace EPK_NS

using namespace EPK_NS;

extern "C" void EPK(trees_f32)(const EpkTrees<float> *trees, const float *x, float *out, int64_t rows, Parallel *p) {
  forest(*trees, x, out, rows, p);
}

extern "C" void EPK(trees_f64)(const EpkTrees<double> *trees, const double *x, double *out, int64_t rows, Parallel *p) {
  forest(*trees, x, out, rows, p);
}
