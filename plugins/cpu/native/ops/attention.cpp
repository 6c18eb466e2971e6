// Attention of the standard, and MultiHeadAttention of com.microsoft.
#include "heads.h"

namespace EPK_NS {
namespace {

// Adds to each row of each head its part of a bias [heads * size]; x is the sum from now on.
bool add_bias(epk_context *ctx, Heads &x, const float *bias) {
  const int64_t row = x.heads * x.size, rows = x.batch * x.rows;
  auto *sum = static_cast<float *>(ctx->scratch(ctx, size_t(rows * row) * 4 + 64));
  if (!sum) return false;
  in_parallel(ctx, rows, grain_of(ctx, rows, ceil_div(16384, row + 1)), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; r++)
      for (int64_t h = 0; h < x.heads; h++) {
        const float *from = x.row(r / x.rows, h, r % x.rows), *part = bias + h * x.size;
        float *to = sum + r * row + h * x.size;
        for (int64_t i = 0; i < x.size; i++) to[i] = from[i] + part[i];
      }
  });
  x.data = sum, x.by_head = x.size, x.by_row = row, x.by_batch = x.rows * row;
  return true;
}

// Heads of one of the n parts of [batch, rows, heads, n, size].
void set_part(Heads &x, const DLTensor &t, int64_t part) {
  x.batch = t.shape[0], x.rows = t.shape[1], x.heads = t.shape[2], x.size = t.shape[4];
  x.data = static_cast<const float *>(t.data) + part * x.size;
  x.by_head = t.shape[3] * x.size, x.by_row = x.heads * x.by_head, x.by_batch = x.rows * x.by_row;
}

// Queries, keys and values of MultiHeadAttention in its forms.
bool set_parts(const DLTensor *in, int n_in, int64_t heads, Heads &q, Heads &k, Heads &v) {
  const auto packed = [&](const DLTensor &t, int64_t n) { return t.ndim == 5 && t.shape[2] == heads && t.shape[3] == n; };
  if (packed(in[0], 3) && !has(in, n_in, 1) && !has(in, n_in, 2)) {
    set_part(q, in[0], 0), set_part(k, in[0], 1), set_part(v, in[0], 2);
    return true;
  }
  if (in[0].ndim != 3 || !q.set(in[0], heads) || !has(in, n_in, 1)) return false;
  if (packed(in[1], 2) && !has(in, n_in, 2)) {
    set_part(k, in[1], 0), set_part(v, in[1], 1);
    return true;
  }
  return has(in, n_in, 2) && in[1].ndim == in[2].ndim && k.set(in[1], heads) && v.set(in[2], heads) && k.heads == heads;
}

// The padding mask [batch] (lengths), [batch, keys] or [batch, queries, keys] as a bias [batch, 1, 1 or queries, keys];
// null where there is no memory or the form is another.
float *padding_bias(epk_context *ctx, const DLTensor &mask, const EpkAttention &a, float fill, int64_t *dims) {
  const auto *given = static_cast<const int32_t *>(mask.data);
  const bool lengths = mask.ndim == 1 && mask.shape[0] == a.batch;
  const bool rows = mask.ndim == 3 && mask.shape[0] == a.batch && mask.shape[1] == a.queries && mask.shape[2] == a.keys;
  if (!lengths && !rows && !(mask.ndim == 2 && mask.shape[0] == a.batch && mask.shape[1] == a.keys)) return nullptr;
  dims[0] = a.batch, dims[1] = 1, dims[2] = rows ? a.queries : 1, dims[3] = a.keys;
  const int64_t n = product(dims, 4);
  auto *bias = static_cast<float *>(ctx->scratch(ctx, size_t(n) * 4 + 64));
  for (int64_t i = 0; bias && i < n; i++) {
    const bool seen = lengths ? i % a.keys < given[i / a.keys] : given[i] > 0;
    bias[i] = seen ? 0.0f : fill;
  }
  return bias;
}

// a + b, which broadcast to each other, in memory of its own; `dims` becomes the shape of the sum.
float *sum_of_biases(epk_context *ctx, const float *a, int64_t *dims, const float *b, const int64_t *other) {
  int64_t full[4], by_a[4], by_b[4], step_a = 1, step_b = 1;
  for (int i = 3; i >= 0; i--) {
    full[i] = max_of(dims[i], other[i]);
    by_a[i] = dims[i] == 1 ? 0 : step_a, step_a *= dims[i];
    by_b[i] = other[i] == 1 ? 0 : step_b, step_b *= other[i];
  }
  const int64_t rows = product(full, 3), n = full[3];
  auto *sum = static_cast<float *>(ctx->scratch(ctx, size_t(rows * n) * 4 + 64));
  for (int64_t r = 0; sum && r < rows; r++) {
    const int64_t at[3] = {r / (full[1] * full[2]), r / full[2] % full[1], r % full[2]};
    const float *x = a + at[0] * by_a[0] + at[1] * by_a[1] + at[2] * by_a[2];
    const float *y = b + at[0] * by_b[0] + at[1] * by_b[1] + at[2] * by_b[2];
    for (int64_t i = 0; i < n; i++) sum[r * n + i] = x[i * by_a[3]] + y[i * by_b[3]];
  }
  memcpy(dims, full, sizeof full);
  return sum;
}

// How many keys of each batch item count: all, the first `given` ones, and no more than a short mask has.
int limit_keys(epk_context *ctx, const DLTensor *given, int64_t most, EpkAttention &a) {
  if (!given && most >= a.keys) return EPK_OK;
  if (given && (given->ndim != 1 || given->shape[0] != a.batch)) return epk_fail(ctx, EPK_UNSUPPORTED, "the lengths %s", ShapeText(*given).text);
  auto *lengths = static_cast<int64_t *>(ctx->scratch(ctx, size_t(a.batch) * 16 + 64));
  if (!lengths) return EPK_FAILED;
  int64_t *pasts = lengths + a.batch;
  for (int64_t i = 0; i < a.batch; i++) {
    const int64_t length = given ? static_cast<const int64_t *>(given->data)[i] : a.keys;
    if (length < 0 || length > a.keys) return epk_fail(ctx, EPK_UNSUPPORTED, "%lld of %lld keys", (long long)length, (long long)a.keys);
    lengths[i] = min_of(length, most);
    pasts[i] = length - a.queries;
  }
  a.lengths = lengths;
  if (given) a.pasts = pasts;
  return EPK_OK;
}

}  // namespace

// Inputs: Q, K, V, mask, past key, past value, lengths. Outputs: Y, present key, present value.
EPK_OPERATOR(attention) {
  const auto &how = *static_cast<const AttentionAttributes *>(attributes);
  Heads q, k, v;
  if (!q.set(in[0], how.heads) || !k.set(in[1], how.kv_heads) || !v.set(in[2], how.kv_heads) || !fit_together(q, k, v)) {
    return epk_fail(ctx, EPK_UNSUPPORTED, "Q %s, K %s and V %s do not fit together", ShapeText(in[0]).text, ShapeText(in[1]).text, ShapeText(in[2]).text);
  }
  const bool has_past = has(in, n_in, 4);
  if (has_past != has(in, n_in, 5)) return EPK_UNSUPPORTED;
  const bool made[2] = {n_out > 1 && out[1].ndim >= 0, n_out > 2 && out[2].ndim >= 0};
  if (has_past && n_out < 3) return EPK_UNSUPPORTED;  // what is joined needs a place
  const int64_t past = has_past && in[4].ndim == 4 ? in[4].shape[2] : 0;
  for (int i = 0; i < 2; i++) {
    if (!has_past && !made[i]) continue;
    if (int status = extend(ctx, has_past ? &in[4 + i] : nullptr, i ? v : k, 1 + i)) return status;
  }
  if (k.rows != v.rows) return epk_fail(ctx, EPK_UNSUPPORTED, "pasts of different lengths");
  EpkAttention a = attention_of(how, q, k, v);
  a.past = past;
  int64_t dims[4], most = k.rows;
  if (has(in, n_in, 3)) {
    if (!four_dims(in[3], dims) || in[3].ndim < 1 || dims[3] > k.rows || (dims[3] == 1 && k.rows != 1) ||
        !set_mask(a, in[3].data, in[3].dtype.code == kDLBool, dims)) {
      return epk_fail(ctx, EPK_UNSUPPORTED, "the mask %s does not fit", ShapeText(in[3]).text);
    }
    most = dims[3];
  }
  if (int status = limit_keys(ctx, has(in, n_in, 6) ? &in[6] : nullptr, most, a)) return status;
  return attend(ctx, a, in[0].ndim == 4, out);
}

// Inputs: query, key, value, bias, key padding mask, attention bias, past key, past value. Outputs: Y, present key,
// present value.
EPK_OPERATOR(multi_head) {
  const auto &how = *static_cast<const AttentionAttributes *>(attributes);
  Heads q, k, v;
  if (!set_parts(in, n_in, how.heads, q, k, v) || !fit_together(q, k, v)) return epk_fail(ctx, EPK_UNSUPPORTED, "query %s", ShapeText(in[0]).text);
  if (has(in, n_in, 3)) {
    const bool cached = in[0].ndim == 3 && in[1].ndim == 4;  // keys that are there already
    const int64_t widths[3] = {q.heads * q.size, k.heads * k.size, v.heads * v.size};
    const auto *bias = static_cast<const float *>(in[3].data);
    if (in[3].ndim != 1 || in[3].shape[0] < widths[0] || (!cached && in[3].shape[0] != widths[0] + widths[1] + widths[2])) {
      return epk_fail(ctx, EPK_UNSUPPORTED, "the bias %s", ShapeText(in[3]).text);
    }
    if (!add_bias(ctx, q, bias)) return EPK_FAILED;
    if (!cached && (!add_bias(ctx, k, bias + widths[0]) || !add_bias(ctx, v, bias + widths[0] + widths[1]))) return EPK_FAILED;
  }
  const bool has_past = has(in, n_in, 6);
  if (has_past != has(in, n_in, 7) || (has_past && n_out < 3)) return EPK_UNSUPPORTED;
  const int64_t fresh = k.rows;
  for (int i = 0; i < 2; i++) {
    const bool made = n_out > 1 + i && out[1 + i].ndim >= 0;
    if (!has_past && !made) continue;
    if (int status = extend(ctx, has_past ? &in[6 + i] : nullptr, i ? v : k, 1 + i)) return status;
  }
  if (k.rows != v.rows) return epk_fail(ctx, EPK_UNSUPPORTED, "pasts of different lengths");
  EpkAttention a = attention_of(how, q, k, v);
  a.past = k.rows - fresh;
  const float *mask = nullptr;
  int64_t dims[4], other[4];
  if (has(in, n_in, 4) && !(mask = padding_bias(ctx, in[4], a, how.fill, dims))) return epk_fail(ctx, EPK_UNSUPPORTED, "the mask %s", ShapeText(in[4]).text);
  if (has(in, n_in, 5)) {
    const auto *bias = static_cast<const float *>(in[5].data);
    if (in[5].ndim != 4 || in[5].shape[3] < k.rows) return epk_fail(ctx, EPK_UNSUPPORTED, "the bias %s", ShapeText(in[5]).text);
    four_dims(in[5], other);
    if (mask && (other[3] != k.rows || (other[0] != 1 && other[0] != a.batch) || (other[2] != 1 && other[2] != a.queries))) return EPK_UNSUPPORTED;
    if (!mask) memcpy(dims, other, sizeof dims), mask = bias;
    else if (!(mask = sum_of_biases(ctx, mask, dims, bias, other))) return EPK_FAILED;
  }
  if (mask && !set_mask(a, mask, false, dims)) return epk_fail(ctx, EPK_UNSUPPORTED, "the bias does not fit");
  return attend(ctx, a, false, out);
}

}  // namespace EPK_NS
