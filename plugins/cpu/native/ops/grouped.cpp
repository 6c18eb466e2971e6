// GroupQueryAttention of com.microsoft, whose caller keeps the cache; and rotary embedding by itself.
#include "heads.h"

namespace EPK_NS {
namespace {

const float *cache_of(const DLTensor &t) { return static_cast<const float *>(t.data); }

// The tokens of each batch item: all after this step, those before it, the new ones.
struct Tokens {
  int64_t *total, *past, *fresh, *places;  // places: of the rotation, [batch, rows]

  bool set(epk_context *ctx, int64_t batch, int64_t rows) {
    total = static_cast<int64_t *>(ctx->scratch(ctx, size_t(batch * (3 + rows)) * 8 + 64));
    past = total + batch, fresh = past + batch, places = fresh + batch;
    return total != nullptr;
  }
};

// The position of each row for the rotation; false where one is outside the `limit` rows of the angles.
bool find_places(const DLTensor *ids, const Tokens &t, int64_t batch, int64_t rows, bool prompt, int64_t limit) {
  const auto *given = ids ? static_cast<const int64_t *>(ids->data) : nullptr;
  if (ids && epk_size(ids) < 1) return false;
  if (ids && !prompt && (ids->ndim != 2 || ids->shape[0] != batch || ids->shape[1] != rows)) return false;
  for (int64_t b = 0; b < batch; b++)
    for (int64_t r = 0; r < rows; r++) {
      int64_t place = r < t.fresh[b] ? t.past[b] + r : 0;  // padding stands anywhere
      if (given) place = prompt ? given[0] + r : given[b * rows + r];
      if (place < 0 || place >= limit) return false;
      t.places[b * rows + r] = place;
    }
  return true;
}

struct Rotation {
  const float *cosine, *sine;
  int64_t half;
  int interleaved;

  // One batch item's rows.
  void turn(const Heads &x, int64_t item, const int64_t *places, int64_t rows, float *to, int64_t by_row, int64_t by_head, Parallel *p) const {
    EPK(rotary_f32)(x.row(item, 0, 0), to, cosine, sine, places, rows, x.heads, x.size, half, x.by_row, x.by_head,
                    by_row, by_head, interleaved, p);
  }
};

// Past rows and new ones (turned if there is a rotation) as output `index`; the rest is zero. x is that from now on.
int store(epk_context *ctx, const DLTensor *past, Heads &x, const Tokens &t, int64_t capacity, const Rotation *rotation, int index) {
  const int64_t shape[4] = {x.batch, x.heads, capacity, x.size};
  auto *all = static_cast<float *>(ctx->output(ctx, index, 4, shape));
  if (!all) return EPK_FAILED;
  const int64_t kept = past ? past->shape[2] : 0, items = x.batch * x.heads, span = capacity * x.size;
  const auto *old = past ? static_cast<const float *>(past->data) : nullptr;
  in_parallel(ctx, items, grain_of(ctx, items, ceil_div(16384, span + 1)), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      if (kept) memcpy(all + i * span, old + i * kept * x.size, size_t(kept * x.size) * 4);
      memset(all + i * span + kept * x.size, 0, size_t((capacity - kept) * x.size) * 4);
      const int64_t item = i / x.heads;
      for (int64_t r = 0; !rotation && r < t.fresh[item]; r++)
        memcpy(all + i * span + (t.past[item] + r) * x.size, x.row(item, i % x.heads, r), size_t(x.size) * 4);
    }
  });
  Threads threads(ctx);
  for (int64_t b = 0; rotation && b < x.batch; b++)
    rotation->turn(x, b, t.places + b * x.rows, t.fresh[b], all + b * x.heads * span + t.past[b] * x.size, x.size, span, &threads);
  x.data = all, x.rows = capacity, x.by_row = x.size, x.by_head = span, x.by_batch = x.heads * span;
  return EPK_OK;
}

// Queries, keys and values, apart or one after the other in each row.
bool set_groups(const DLTensor *in, int n_in, const AttentionAttributes &how, Heads &q, Heads &k, Heads &v) {
  if (in[0].ndim != 3 || how.heads < 1 || how.kv_heads < 1 || how.heads % how.kv_heads) return false;
  if (has(in, n_in, 1) && has(in, n_in, 2)) {
    return in[1].ndim == 3 && in[2].ndim == 3 && q.set(in[0], how.heads) && k.set(in[1], how.kv_heads) && v.set(in[2], how.kv_heads);
  }
  if (has(in, n_in, 1) || has(in, n_in, 2) || !q.set(in[0], how.heads + 2 * how.kv_heads)) return false;
  k = v = q;
  q.heads = how.heads, k.heads = v.heads = how.kv_heads;
  k.data = q.data + how.heads * q.size, v.data = k.data + how.kv_heads * q.size;
  return true;
}

bool set_tokens(const Tokens &t, const int32_t *lengths, int64_t batch, int64_t rows, int64_t total) {
  for (int64_t b = 0; b < batch; b++) {
    t.total[b] = int64_t(lengths[b]) + 1;
    if (t.total[b] < 1 || t.total[b] > total) return false;
    t.fresh[b] = min_of(t.total[b], rows);
    t.past[b] = t.total[b] - t.fresh[b];
  }
  return true;
}

bool is_past(const DLTensor &t, const Heads &k) {
  return t.ndim == 4 && t.shape[0] == k.batch && t.shape[1] == k.heads && t.shape[3] == k.size;
}

}  // namespace

// Inputs: query, key, value, past key, past value, lengths - 1, total length, cosines, sines, positions, bias, sink.
// Outputs: Y, present key, present value. What does not fit goes to the portable kernel, which says why.
EPK_OPERATOR(grouped_attention) {
  const auto &how = *static_cast<const AttentionAttributes *>(attributes);
  Heads q, k, v;
  if (n_out < 3 || !set_groups(in, n_in, how, q, k, v) || !fit_together(q, k, v) || k.rows != q.rows || k.size != v.size) return EPK_UNSUPPORTED;
  const int64_t batch = q.batch, rows = q.rows;
  if (batch < 1 || rows < 1 || q.size < 1 || epk_size(&in[5]) != batch || epk_size(&in[6]) != 1) return EPK_UNSUPPORTED;
  const int64_t total = *static_cast<const int32_t *>(in[6].data);
  Tokens tokens;
  if (!tokens.set(ctx, batch, rows)) return EPK_FAILED;
  if (!set_tokens(tokens, static_cast<const int32_t *>(in[5].data), batch, rows, total)) return EPK_UNSUPPORTED;
  const bool has_past = has(in, n_in, 3);
  if (has_past != has(in, n_in, 4)) return EPK_UNSUPPORTED;
  if (has_past && (!is_past(in[3], k) || !is_past(in[4], v) || in[3].shape[2] != in[4].shape[2])) return EPK_UNSUPPORTED;
  const int64_t capacity = max_of<int64_t>(total, has_past ? in[3].shape[2] : 0);
  Rotation rotation{};
  const bool turns = how.flags & ROTARY;
  if (turns) {
    if (!has(in, n_in, 7) || !has(in, n_in, 8) || in[7].ndim != 2 || in[8].ndim != 2 || in[7].shape[0] != in[8].shape[0] || in[7].shape[1] != in[8].shape[1]) return EPK_UNSUPPORTED;
    rotation = {cache_of(in[7]), cache_of(in[8]), in[7].shape[1], (how.flags & INTERLEAVED) != 0};
    if (rotation.half < 1 || 2 * rotation.half > q.size) return EPK_UNSUPPORTED;
    if (!find_places(has(in, n_in, 9) ? &in[9] : nullptr, tokens, batch, rows, rows == total, in[7].shape[0])) return EPK_UNSUPPORTED;
    auto *turned = static_cast<float *>(ctx->scratch(ctx, size_t(batch * rows * q.heads * q.size) * 4 + 64));
    if (!turned) return EPK_FAILED;
    const int64_t row = q.heads * q.size;
    Threads threads(ctx);
    for (int64_t b = 0; b < batch; b++) rotation.turn(q, b, tokens.places + b * rows, rows, turned + b * rows * row, row, q.size, &threads);
    q.data = turned, q.by_head = q.size, q.by_row = row, q.by_batch = rows * row;
  }
  if (int status = store(ctx, has_past ? &in[3] : nullptr, k, tokens, capacity, turns ? &rotation : nullptr, 1)) return status;
  if (int status = store(ctx, has_past ? &in[4] : nullptr, v, tokens, capacity, nullptr, 2)) return status;
  k.rows = v.rows = total;
  EpkAttention a = attention_of(how, q, k, v);
  a.lengths = tokens.total, a.pasts = tokens.past;
  int64_t dims[4];
  if (has(in, n_in, 10) && (in[10].ndim != 4 || in[10].shape[3] < total || !four_dims(in[10], dims) || !set_mask(a, in[10].data, false, dims))) return EPK_UNSUPPORTED;
  if (has(in, n_in, 11) && (in[11].ndim != 1 || in[11].shape[0] != q.heads)) return EPK_UNSUPPORTED;
  if (has(in, n_in, 11)) a.sink = cache_of(in[11]);
  if (!a.sink && (how.flags & SMOOTH)) {
    auto *zeros = static_cast<float *>(ctx->scratch(ctx, size_t(q.heads) * 4 + 64));
    if (!zeros) return EPK_FAILED;
    memset(zeros, 0, size_t(q.heads) * 4);
    a.sink = zeros;
  }
  return attend(ctx, a, false, out);
}

// Attributes: heads, turned features (0: all), interleaved, whether positions come second (as com.microsoft has it).
// Inputs: x, cosines, sines, positions; or x, positions, cosines, sines.
EPK_OPERATOR(rotary) {
  const auto *how = static_cast<const int64_t *>(attributes);
  const bool second = how[3] != 0;
  const DLTensor &x = in[0], &cosines = in[second ? 2 : 1], &sines = in[second ? 3 : 2];
  const DLTensor *ids = second ? &in[1] : has(in, n_in, 3) ? &in[3] : nullptr;
  Heads heads;
  const int64_t known = how[0] ? how[0] : second && !how[1] && x.ndim == 3 && cosines.ndim == 2 && cosines.shape[1] > 0 ? x.shape[2] / (2 * cosines.shape[1]) : 0;
  if (!heads.set(x, known)) return EPK_UNSUPPORTED;
  const int64_t turned = how[1] ? how[1] : heads.size, half = turned / 2, batch = heads.batch, rows = heads.rows;
  if (turned < 2 || turned % 2 || turned > heads.size) return EPK_UNSUPPORTED;
  const int rank = ids ? 2 : 3;
  if (cosines.ndim != rank || sines.ndim != rank || cosines.shape[rank - 1] != half || epk_size(&cosines) != epk_size(&sines) || sines.shape[rank - 1] != half) return EPK_UNSUPPORTED;
  if (!ids && (cosines.shape[0] != batch || cosines.shape[1] != rows)) return EPK_UNSUPPORTED;
  const bool first = second && epk_size(ids) == 1 && ids->ndim <= 1;  // of one number the others follow
  if (ids && !first && (ids->ndim != 2 || ids->shape[0] != batch || ids->shape[1] != rows)) return EPK_UNSUPPORTED;
  auto *places = static_cast<int64_t *>(ctx->scratch(ctx, size_t(batch * rows) * 8 + 64));
  if (!places) return EPK_FAILED;
  for (int64_t i = 0; i < batch * rows; i++) {
    const auto *given = ids ? static_cast<const int64_t *>(ids->data) : nullptr;
    places[i] = first ? given[0] + i % rows : given ? given[i] : i;
    if (ids && (places[i] < 0 || places[i] >= cosines.shape[0])) return EPK_UNSUPPORTED;
  }
  auto *y = static_cast<float *>(ctx->output(ctx, 0, x.ndim, x.shape));
  if (!y) return EPK_FAILED;
  if (epk_size(&x) == 0) return EPK_OK;
  const Rotation rotation{cache_of(cosines), cache_of(sines), half, how[2] != 0};
  Threads threads(ctx);
  for (int64_t b = 0; b < batch; b++)
    rotation.turn(heads, b, places + b * rows, rows, y + b * heads.by_batch, heads.by_row, heads.by_head, &threads);
  return EPK_OK;
}

}  // namespace EPK_NS
