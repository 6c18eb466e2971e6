#include "trees.h"

namespace EPK_NS {
namespace {

constexpr int ROWS = 16;  // rows that walk a tree together: their misses overlap

bool goes_yes(const EpkTreeNode &node, float value) {
  if (value != value) return node.missing_yes;
  switch (node.branch) {
    case EPK_LEQ: return value <= node.threshold;
    case EPK_LT: return value < node.threshold;
    case EPK_GTE: return value >= node.threshold;
    case EPK_GT: return value > node.threshold;
    case EPK_EQ: return value == node.threshold;
    default: return value != node.threshold;
  }
}

// The leaves of `rows` rows in one tree.
template <bool LEQ> void walk(const EpkTrees &t, int32_t root, const float *x, int64_t rows, int32_t *leaf) {
  for (int64_t r = 0; r < rows; r++) leaf[r] = root;
  for (bool moved = root >= 0; moved;) {
    moved = false;
    for (int64_t r = 0; r < rows; r++) {
      if (leaf[r] < 0) continue;
      const EpkTreeNode &node = t.nodes[leaf[r]];
      const float value = x[r * t.features + node.feature];
      const bool yes = LEQ ? (value <= node.threshold || (value != value && node.missing_yes)) : goes_yes(node, value);
      leaf[r] = yes ? node.yes : node.no;
      moved |= leaf[r] >= 0;
    }
  }
}

// Least and greatest start from NaN: nothing seen yet.
void add(const EpkTrees &t, int32_t leaf, float *out) {
  for (int32_t i = t.leaf_begin[leaf]; i < t.leaf_begin[leaf + 1]; i++) {
    const float weight = t.entry_weight[i];
    float &value = out[t.entry_target[i]];
    if (t.aggregate == EPK_MIN) value = weight > value ? value : weight;
    else if (t.aggregate == EPK_MAX) value = weight < value ? value : weight;
    else value += weight;
  }
}

}  // namespace
}  // namespace EPK_NS

using namespace EPK_NS;

extern "C" void EPK(trees_f32)(const EpkTrees *trees, const float *x, float *out, int64_t rows, Parallel *p) {
  const EpkTrees &t = *trees;
  const bool extreme = t.aggregate == EPK_MIN || t.aggregate == EPK_MAX;
  const float start = extreme ? __builtin_nanf("") : 0.0f;
  const float factor = t.aggregate == EPK_AVERAGE ? 1.0f / (float)t.trees : 1.0f;
  parallel_for(p, ceil_div(rows, ROWS), 2, [&](int64_t begin, int64_t end, int) {
    int32_t leaf[ROWS];
    for (int64_t b = begin; b < end; b++) {
      const int64_t first = b * ROWS, count = min_of<int64_t>(ROWS, rows - first);
      const float *from = x + first * t.features;
      float *to = out + first * t.targets;
      for (int64_t i = 0; i < count * t.targets; i++) to[i] = start;
      for (int64_t i = 0; i < t.trees; i++) {
        if (t.all_leq) walk<true>(t, t.roots[i], from, count, leaf);
        else walk<false>(t, t.roots[i], from, count, leaf);
        for (int64_t r = 0; r < count; r++) add(t, ~leaf[r], to + r * t.targets);
      }
      for (int64_t i = 0; i < count * t.targets; i++) {
        if (to[i] != to[i]) to[i] = 0.0f;
        to[i] = to[i] * factor + (t.base ? t.base[i % t.targets] : 0.0f);
      }
    }
  });
}
