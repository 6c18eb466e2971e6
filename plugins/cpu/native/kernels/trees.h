// Decision forests on rows of float32 or float64.
#pragma once
#include "simd.h"

#ifndef EPK_TREES
#define EPK_TREES
enum EpkReduction { EPK_VOTES_SUM, EPK_VOTES_MIN, EPK_VOTES_MAX };

// A comparison of a feature with the threshold has four outcomes, (x <= t) + 2 (x >= t): NaN, less, greater, equal.
// A child below zero is leaf ~child. All branch modes and missing-value tracks are this one step.
template <class T> struct EpkTreeNode {
  T threshold;
  int32_t feature;
  int32_t child[4];
};

// The votes of a leaf are a row of `table` [leaves, columns], or, where that is null, the entries
// leaf_begin[leaf] to leaf_begin[leaf + 1].
template <class T> struct EpkTrees {
  const EpkTreeNode<T> *nodes;
  const int32_t *roots;  // of each tree; below zero: a tree of one leaf
  int64_t trees;
  const T *table;
  const int32_t *leaf_begin;    // [leaves + 1]
  const int32_t *entry_column;  // [entries]
  const T *entry_weight;        // [entries]
  int64_t features, columns;
  int64_t reduction;  // EpkReduction
};
#endif

extern "C" {
// out [rows, columns] from x [rows, features]: the votes of all trees, reduced in the order of the trees. Where no tree
// votes, the identity of the reduction (0, inf, -inf) is left.
void EPK(trees_f32)(const EpkTrees<float> *trees, const float *x, float *out, int64_t rows, Parallel *p);
void EPK(trees_f64)(const EpkTrees<double> *trees, const double *x, double *out, int64_t rows, Parallel *p);
}
