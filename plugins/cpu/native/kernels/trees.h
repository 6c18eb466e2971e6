// Ensembles of decision trees on rows of float32.
#pragma once
#include "simd.h"

#ifndef EPK_TREES
#define EPK_TREES
enum EpkBranch { EPK_LEQ, EPK_LT, EPK_GTE, EPK_GT, EPK_EQ, EPK_NEQ };
enum EpkAggregate { EPK_SUM, EPK_AVERAGE, EPK_MIN, EPK_MAX };

// A node goes to `yes` where `value <branch> threshold` holds, to `no` elsewhere; a child below zero is leaf ~child.
struct EpkTreeNode {
  float threshold;
  int32_t feature;
  int32_t yes, no;
  uint8_t branch;        // EpkBranch
  uint8_t missing_yes;   // where NaN goes
  uint16_t unused;
};

struct EpkTrees {
  const EpkTreeNode *nodes;
  const int32_t *roots;        // of each tree; below zero: a tree of one leaf
  int64_t trees;
  const int32_t *leaf_begin;   // [leaves + 1]: the entries of a leaf
  const int32_t *entry_target; // [entries]
  const float *entry_weight;
  int64_t features, targets;
  int32_t aggregate;           // EpkAggregate
  int32_t all_leq;             // every branch is EPK_LEQ, as most libraries write them: a shorter loop
  const float *base;           // added to each target, or null
};
#endif

extern "C" {
// out [rows, targets] from x [rows, features]. A target that no leaf names is its base.
void EPK(trees_f32)(const EpkTrees *trees, const float *x, float *out, int64_t rows, Parallel *p);
}
