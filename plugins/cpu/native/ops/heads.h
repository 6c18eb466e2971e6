// What attention operators share: queries, keys and values by heads, caches, masks.
#pragma once
#include "../kernels/attention.h"
#include "copy.h"

namespace EPK_NS {

struct AttentionAttributes {
  int64_t heads, kv_heads;  // of inputs of rank 3, [batch, rows, heads * size]
  int64_t left, right;      // which keys around its own a query sees; negative: all
  float scale, softcap;     // scale NaN: 1 / sqrt(size)
  float fill;               // what a padding mask adds to the scores of hidden keys
  int32_t flags;
};
enum { ROTARY = 1, INTERLEAVED = 2, SMOOTH = 4 };

inline bool has(const DLTensor *in, int n_in, int index) { return index < n_in && !absent(in[index]); }

// [batch, heads, rows, size] by strides; the last one is 1.
struct Heads {
  const float *data;
  int64_t batch, heads, rows, size, by_batch, by_head, by_row;

  // A tensor of either rank; false if it cannot be split into n heads.
  bool set(const DLTensor &t, int64_t n) {
    data = static_cast<const float *>(t.data);
    if (t.ndim == 4) {
      batch = t.shape[0], heads = t.shape[1], rows = t.shape[2], size = t.shape[3];
      by_row = size, by_head = rows * size, by_batch = heads * by_head;
      return true;
    }
    if (t.ndim != 3 || n < 1 || t.shape[2] % n) return false;
    batch = t.shape[0], rows = t.shape[1], heads = n, size = t.shape[2] / n;
    by_head = size, by_row = t.shape[2], by_batch = rows * by_row;
    return true;
  }

  const float *row(int64_t item, int64_t head, int64_t r) const {
    return data + item * by_batch + head * by_head + r * by_row;
  }
};

inline bool fit_together(const Heads &q, const Heads &k, const Heads &v) {
  return k.batch == q.batch && v.batch == q.batch && k.size == q.size && v.rows == k.rows && v.heads == k.heads &&
         k.heads >= 1 && q.heads % k.heads == 0;
}

// Rows of x to a dense [batch, heads, capacity, size], from row `at` on.
inline void copy_heads(epk_context *ctx, const Heads &x, float *to, int64_t capacity, int64_t at, int64_t rows) {
  const int64_t items = x.batch * x.heads;
  in_parallel(ctx, items, grain_of(ctx, items, ceil_div(16384, rows * x.size + 1)), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++)
      for (int64_t r = 0; r < rows; r++)
        memcpy(to + (i * capacity + at + r) * x.size, x.row(i / x.heads, i % x.heads, r), size_t(x.size) * 4);
  });
}

// Past rows (if `past` is there), then the new ones, as output `index`; x is that from now on.
inline int extend(epk_context *ctx, const DLTensor *past, Heads &x, int index) {
  if (past && (past->ndim != 4 || past->shape[0] != x.batch || past->shape[1] != x.heads || past->shape[3] != x.size)) {
    return epk_fail(ctx, EPK_UNSUPPORTED, "the past %s does not fit", ShapeText(*past).text);
  }
  const int64_t before = past ? past->shape[2] : 0, shape[4] = {x.batch, x.heads, before + x.rows, x.size};
  auto *all = static_cast<float *>(ctx->output(ctx, index, 4, shape));
  if (!all) return EPK_FAILED;
  if (past) {
    Heads old{};
    old.set(*past, 0);
    copy_heads(ctx, old, all, shape[2], 0, before);
  }
  copy_heads(ctx, x, all, shape[2], before, x.rows);
  x.data = all, x.rows = shape[2], x.by_row = x.size, x.by_head = shape[2] * x.size, x.by_batch = x.heads * x.by_head;
  return EPK_OK;
}

// A mask of the scores of `dims` [batch, heads, queries, keys], of which all but the last may be 1; false if it does
// not fit.
inline bool set_mask(EpkAttention &a, const void *data, bool is_bool, const int64_t *dims) {
  const int64_t full[3] = {a.batch, a.heads, a.queries};
  int64_t strides[4], stride = 1;
  for (int i = 3; i >= 0; i--) strides[i] = dims[i] == 1 ? 0 : stride, stride *= dims[i];
  for (int i = 0; i < 3; i++)
    if (dims[i] != 1 && dims[i] != full[i]) return false;
  if (is_bool) a.allowed = static_cast<const uint8_t *>(data);
  else a.mask = static_cast<const float *>(data);
  a.mask_batch = strides[0], a.mask_head = strides[1], a.mask_row = strides[2];
  return true;
}

// The shape of a tensor of at most four dimensions, with ones before it; false if it has more.
inline bool four_dims(const DLTensor &t, int64_t *dims) {
  if (t.ndim > 4) return false;
  for (int i = 0; i < 4; i++) dims[i] = i < 4 - t.ndim ? 1 : t.shape[i - 4 + t.ndim];
  return true;
}

inline EpkAttention attention_of(const AttentionAttributes &how, const Heads &q, const Heads &k, const Heads &v) {
  EpkAttention a{};
  a.batch = q.batch, a.heads = q.heads, a.kv_heads = k.heads;
  a.queries = q.rows, a.keys = k.rows, a.size = q.size, a.value_size = v.size;
  a.q = q.data, a.k = k.data, a.v = v.data;
  a.q_batch = q.by_batch, a.q_head = q.by_head, a.q_row = q.by_row;
  a.k_batch = k.by_batch, a.k_head = k.by_head, a.k_row = k.by_row;
  a.v_batch = v.by_batch, a.v_head = v.by_head, a.v_row = v.by_row;
  a.scale = how.scale == how.scale ? how.scale : 1.0f / __builtin_sqrtf(float(max_of<int64_t>(q.size, 1)));
  a.softcap = how.softcap, a.left = how.left, a.right = how.right;
  return a;
}

// Makes output 0, [batch, heads, rows, size] or [batch, rows, heads * size], and fills it.
inline int attend(epk_context *ctx, EpkAttention &a, bool by_heads, DLTensor *out) {
  const int64_t four[4] = {a.batch, a.heads, a.queries, a.value_size}, three[3] = {a.batch, a.queries, a.heads * a.value_size};
  a.out = static_cast<float *>(ctx->output(ctx, 0, by_heads ? 4 : 3, by_heads ? four : three));
  if (!a.out) return EPK_FAILED;
  const int64_t size = epk_size(&out[0]);
  if (size == 0) return EPK_OK;
  if (a.keys == 0) {
    memset(a.out, 0, size_t(size) * 4);
    return EPK_OK;
  }
  a.out_batch = a.queries * a.heads * a.value_size;
  a.out_head = by_heads ? a.queries * a.value_size : a.value_size;
  a.out_row = by_heads ? a.value_size : a.heads * a.value_size;
  void *scratch = ctx->scratch(ctx, size_t(EPK(attention_scratch_f32)(&a, ctx->threads)));
  if (!scratch) return EPK_FAILED;
  Threads threads(ctx);
  EPK(attention_f32)(&a, scratch, &threads);
  return EPK_OK;
}

}  // namespace EPK_NS
