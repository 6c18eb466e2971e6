// Attention over whole tensors: ONNX's Attention and the forms of it that other operators are.
#include "../kernels/attention.h"

#include "copy.h"

namespace EPK_NS {
namespace {

struct AttentionAttributes {
  int64_t heads, kv_heads;  // of inputs of rank 3, [batch, rows, heads * size]
  int64_t causal;
  float scale, softcap;     // scale 0: 1 / sqrt(size)
};

// An operand of either rank, as [batch, heads, rows, size] by strides.
struct Operand {
  const float *data;
  int64_t batch, heads, rows, size, by_batch, by_head, by_row;

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
};

// Past and new rows one after the other, [batch, heads, past + rows, size]; the operand is that from now on.
bool extend(epk_context *ctx, const DLTensor &past, Operand &x, int index) {
  if (past.ndim != 4 || past.shape[0] != x.batch || past.shape[1] != x.heads || past.shape[3] != x.size) {
    epk_fail(ctx, EPK_INVALID, "the past %s does not fit", ShapeText(past).text);
    return false;
  }
  const int64_t before = past.shape[2], shape[4] = {x.batch, x.heads, before + x.rows, x.size};
  auto *all = static_cast<float *>(ctx->output(ctx, index, 4, shape));
  if (!all) return false;
  const auto *old = static_cast<const float *>(past.data);
  const int64_t span = shape[2] * x.size, items = x.batch * x.heads;
  in_parallel(ctx, items, grain_of(ctx, items, ceil_div(16384, span + 1)), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      float *to = all + i * span;
      memcpy(to, old + i * before * x.size, size_t(before * x.size) * 4);
      const float *from = x.data + i / x.heads * x.by_batch + i % x.heads * x.by_head;
      for (int64_t r = 0; r < x.rows; r++) memcpy(to + (before + r) * x.size, from + r * x.by_row, size_t(x.size) * 4);
    }
  });
  x.data = all, x.rows = shape[2], x.by_row = x.size, x.by_head = span, x.by_batch = x.heads * span;
  return true;
}

}  // namespace

// Inputs: Q, K, V, mask, past key, past value. Outputs: Y, present key, present value.
EPK_OPERATOR(attention) {
  const auto &how = *static_cast<const AttentionAttributes *>(attributes);
  Operand q, k, v;
  if (!q.set(in[0], how.heads) || !k.set(in[1], how.kv_heads) || !v.set(in[2], how.kv_heads)) {
    return epk_fail(ctx, EPK_INVALID, "Q %s, K %s and V %s are not split into heads", ShapeText(in[0]).text, ShapeText(in[1]).text, ShapeText(in[2]).text);
  }
  if (k.batch != q.batch || v.batch != q.batch || k.size != q.size || v.rows != k.rows || v.heads != k.heads ||
      k.heads < 1 || q.heads % k.heads) {
    return epk_fail(ctx, EPK_INVALID, "Q %s, K %s and V %s do not fit together", ShapeText(in[0]).text, ShapeText(in[1]).text, ShapeText(in[2]).text);
  }
  const bool has_past = n_in > 5 && !absent(in[4]) && !absent(in[5]);
  const int64_t past = has_past ? in[4].shape[2] : 0;
  if (has_past && (!extend(ctx, in[4], k, 1) || !extend(ctx, in[5], v, 2))) return EPK_FAILED;
  if (!has_past && n_out > 1 && (out[1].ndim >= 0 || (n_out > 2 && out[2].ndim >= 0))) return EPK_UNSUPPORTED;
  EpkAttention a{};
  a.batch = q.batch, a.heads = q.heads, a.kv_heads = k.heads, a.queries = q.rows, a.keys = k.rows, a.size = q.size, a.value_size = v.size;
  a.q = q.data, a.k = k.data, a.v = v.data;
  a.q_batch = q.by_batch, a.q_head = q.by_head, a.q_row = q.by_row;
  a.k_batch = k.by_batch, a.k_head = k.by_head, a.k_row = k.by_row;
  a.v_batch = v.by_batch, a.v_head = v.by_head, a.v_row = v.by_row;
  a.scale = how.scale != 0.0f ? how.scale : 1.0f / __builtin_sqrtf(float(q.size));
  a.softcap = how.softcap;
  a.causal = int32_t(how.causal), a.past = past;
  if (n_in > 3 && !absent(in[3])) {
    const DLTensor &m = in[3];
    int64_t dims[4] = {1, 1, 1, 1}, strides[4], stride = 1;
    if (m.ndim > 4 || m.ndim < 2) return epk_fail(ctx, EPK_UNSUPPORTED, "a mask of rank %d", m.ndim);
    for (int i = 0; i < m.ndim; i++) dims[4 - m.ndim + i] = m.shape[i];
    for (int i = 3; i >= 0; i--) strides[i] = dims[i] == 1 ? 0 : stride, stride *= dims[i];
    const int64_t full[4] = {q.batch, q.heads, q.rows, k.rows};
    for (int i = 0; i < 3; i++)
      if (dims[i] != 1 && dims[i] != full[i]) return epk_fail(ctx, EPK_UNSUPPORTED, "the mask %s does not fit", ShapeText(m).text);
    if (dims[3] != k.rows) return epk_fail(ctx, EPK_UNSUPPORTED, "the mask %s has not one value for each key", ShapeText(m).text);
    if (m.dtype.code == kDLBool) a.allowed = static_cast<const uint8_t *>(m.data);
    else a.mask = static_cast<const float *>(m.data);
    a.mask_batch = strides[0], a.mask_head = strides[1], a.mask_row = strides[2];
  }
  const int64_t four[4] = {q.batch, q.heads, q.rows, v.size}, three[3] = {q.batch, q.rows, q.heads * v.size};
  const bool split = in[0].ndim == 4;
  a.out = static_cast<float *>(ctx->output(ctx, 0, split ? 4 : 3, split ? four : three));
  if (!a.out) return EPK_FAILED;
  if (epk_size(&out[0]) == 0) return EPK_OK;
  if (k.rows == 0) return epk_fail(ctx, EPK_UNSUPPORTED, "there are no keys");
  a.out_batch = q.rows * q.heads * v.size;
  a.out_head = split ? q.rows * v.size : v.size;
  a.out_row = split ? v.size : q.heads * v.size;
  void *scratch = ctx->scratch(ctx, size_t(EPK(attention_scratch_f32)(&a, ctx->threads)));
  if (!scratch) return EPK_FAILED;
  Threads threads(ctx);
  EPK(attention_f32)(&a, scratch, &threads);
  return EPK_OK;
}

}  // namespace EPK_NS
