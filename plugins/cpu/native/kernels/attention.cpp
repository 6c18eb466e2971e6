#include "attention.h"

#include "softmax_row.h"
#include "tile_f32.h"
#include "transpose.h"

namespace EPK_NS {
namespace {

constexpr int64_t KEYS = 512;  // keys at once: scores and packed keys of a block stay in L2

// Scratch of a thread, in elements: packed keys, a packed panel of values, scores, sums.
struct Sizes {
  int64_t width, row, keys, values, scores, sums;  // row: elements between rows of scores
  bool few;  // so few queries that keys are read as they lie
  explicit Sizes(const EpkAttention &a) {
    width = round_up(min_of<int64_t>(KEYS, max_of<int64_t>(a.keys, 1)), PANEL);
    row = width + BLOCK;  // not a power of two: rows would share cache sets
    few = a.queries <= 3;
    keys = few ? 0 : round_up(a.keys, PANEL) * a.size;
    values = a.value_size % PANEL ? width * PANEL : 0;
    scores = TILE_ROWS * row;
    sums = TILE_ROWS * round_up(a.value_size, PANEL);
  }
  int64_t total() const { return round_up(keys, 16) + round_up(values, 16) + round_up(scores, 16) + round_up(sums, 16); }
};

// Up to TILE_ROWS queries of one head. Or, where queries are few, those of all the heads that share keys.
struct Queries {
  const EpkAttention &a;
  const Sizes &sizes;
  int64_t item, kv_head, keys;  // keys: that the item has
  const float *packed;
  float *values, *scores, *sums;
  // Row r is query first + r % span of head + r / span.
  int64_t head, first, span, rows;
  float top[TILE_ROWS], total[TILE_ROWS];

  int64_t query_of(int64_t r) const { return first + r % span; }
  const float *q_of(int64_t r) const { return a.q + item * a.q_batch + (head + r / span) * a.q_head + query_of(r) * a.q_row; }

  // The keys [begin, end) that a row may see.
  void seen(int64_t r, int64_t &begin, int64_t &end) const {
    const int64_t place = query_of(r) + (a.pasts ? a.pasts[item] : a.past);
    begin = a.left < 0 ? 0 : max_of<int64_t>(0, place - a.left);
    end = a.right < 0 ? keys : min_of(keys, max_of<int64_t>(0, place + a.right + 1));
  }

  void score_block(int64_t from, int64_t count) {
    if (!sizes.few) {
      TileF32 t{};
      t.a = q_of(0), t.a_row = a.q_row, t.blocks = 1, t.steps = a.size;
      t.b_step = PANEL, t.c_row = sizes.row, t.c_vector = VL, t.last = false;
      for (int64_t j = 0; j < count; j += PANEL) {
        t.b = packed + (from + j) * a.size, t.c = scores + j;
        tile_for((int)rows, 2, t.a_row)(t);
      }
      return;
    }
    const float *k = a.k + item * a.k_batch + kv_head * a.k_head + from * a.k_row;
    for (int64_t j = 0; j < count; j += 4)
      for (int64_t r = 0; r < rows; r++) {
        const float *q = q_of(r);
        const int64_t last = min_of<int64_t>(4, count - j) - 1;
        const float *key[4];
        for (int64_t i = 0; i < 4; i++) key[i] = k + (j + min_of(i, last)) * a.k_row;
        vf acc[4] = {};
        int64_t d = 0;
        for (; d + VL <= a.size; d += VL)
#pragma GCC unroll 4
          for (int i = 0; i < 4; i++) acc[i] = fma_of(load(q + d), load(key[i] + d), acc[i]);
        if (d < a.size)
#pragma GCC unroll 4
          for (int i = 0; i < 4; i++) acc[i] = fma_of(load_n(q + d, a.size - d), load_n(key[i] + d, a.size - d), acc[i]);
        for (int64_t i = 0; i <= last; i++) scores[r * sizes.row + j + i] = sum_of(acc[i]);
      }
  }

  // Scores of one row made probabilities (but for the sum); what the sums so far must be multiplied by.
  float weigh(int64_t r, int64_t from, int64_t count) {
    float *s = scores + r * sizes.row;
    const int64_t place = item * a.mask_batch + (head + r / span) * a.mask_head + query_of(r) * a.mask_row + from;
    // Without mask and cap, the scale waits for the exponential.
    const bool plain = !a.mask && a.softcap == 0.0f && a.scale > 0.0f;
    for (int64_t j = 0; !plain && j < count; j += VL) {
      const int64_t lanes = min_of<int64_t>(VL, count - j);
      vf x = load_n(s + j, lanes) * a.scale;
      if (a.softcap != 0.0f) x = vtanh(x / a.softcap) * a.softcap;
      if (a.mask) x += load_n(a.mask + place + j, lanes);
      store_n(s + j, x, lanes);
    }
    const float never = -__builtin_inff();
    for (int64_t j = 0; a.allowed && j < count; j++)
      if (!a.allowed[place + j]) s[j] = never;
    int64_t begin, end;
    seen(r, begin, end);
    begin = min_of(max_of<int64_t>(begin - from, 0), count), end = min_of(max_of<int64_t>(end - from, begin), count);
    for (int64_t j = 0; j < begin; j++) s[j] = never;
    for (int64_t j = end; j < count; j++) s[j] = never;
    const float scale = plain ? a.scale : 1.0f;
    const float best = end > begin ? row_max(s + begin, end - begin) * scale : never;
    const float most = best > top[r] || best != best ? best : top[r];
    if (most == never) {
      memset(s, 0, (size_t)count * 4);
      return 1.0f;
    }
    const float factor = top[r] == never ? 0.0f : expf(top[r] - most);
    total[r] = total[r] * factor + row_exp(s, scale, most, s, count);
    top[r] = most;
    return factor;
  }

  void add_values(int64_t from, int64_t count, bool first_block) {
    const float *v = a.v + item * a.v_batch + kv_head * a.v_head + from * a.v_row;
    const int64_t width = round_up(a.value_size, PANEL);
    TileF32 t{};
    t.a = scores, t.a_row = sizes.row, t.blocks = 1, t.steps = count;
    t.c_row = width, t.c_vector = VL, t.accumulate = !first_block;
    for (int64_t j = 0; j < a.value_size; j += PANEL) {
      t.b = v + j, t.b_step = a.v_row, t.c = sums + j;
      if (a.value_size - j < PANEL) {
        pack_panel(v + j, a.v_row, 1, count, a.value_size - j, values);
        t.b = values, t.b_step = PANEL;
      }
      tile_for((int)rows, 2, t.a_row)(t);
    }
  }

  // What the sums of a row are multiplied by in the end.
  float share_of(int64_t r) const {
    if (!a.sink) return 1.0f / total[r];
    const float sink = a.sink[head + r / span], most = top[r] > sink || top[r] != top[r] ? top[r] : sink;
    const float kept = expf(top[r] - most);
    return kept / (total[r] * kept + expf(sink - most));
  }

  void run() {
    const int64_t width = round_up(a.value_size, PANEL);
    int64_t begin = keys, end = 0;
    for (int64_t r = 0; r < rows; r++) {
      int64_t b, e;
      seen(r, b, e);
      begin = min_of(begin, b), end = max_of(end, e);
      top[r] = -__builtin_inff(), total[r] = 0;
    }
    begin = begin / PANEL * PANEL;
    bool first_block = true;
    for (int64_t from = begin; from < end; from += sizes.width) {
      const int64_t count = min_of(sizes.width, end - from);
      score_block(from, count);
      for (int64_t r = 0; r < rows; r++) {
        const float factor = weigh(r, from, count);
        if (!first_block && factor != 1.0f) row_scale(sums + r * width, factor, sums + r * width, a.value_size);
      }
      add_values(from, count, first_block);
      first_block = false;
    }
    for (int64_t r = 0; r < rows; r++) {
      float *to = a.out + item * a.out_batch + (head + r / span) * a.out_head + query_of(r) * a.out_row;
      if (first_block || total[r] == 0.0f) memset(to, 0, (size_t)a.value_size * 4);
      else row_scale(sums + r * width, share_of(r), to, a.value_size);
    }
  }
};

// How the work is cut: tasks are (batch item, head, chunk of queries), or (batch item, key head) where queries are few.
int64_t chunks_of(const EpkAttention &a, int threads) {
  const int64_t heads = a.batch * a.heads, tiles = ceil_div(a.queries, TILE_ROWS);
  return heads >= 2 * threads ? 1 : min_of(tiles, ceil_div(2 * (int64_t)threads, heads));
}

}  // namespace
}  // namespace EPK_NS

using namespace EPK_NS;

extern "C" int64_t EPK(attention_scratch_f32)(const EpkAttention *a, int threads) {
  return Sizes(*a).total() * 4 * threads;
}

extern "C" void EPK(attention_f32)(const EpkAttention *attention, void *scratch, Parallel *p) {
  const EpkAttention &a = *attention;
  const Sizes sizes(a);
  const int64_t share = a.heads / a.kv_heads, chunks = sizes.few ? 1 : chunks_of(a, threads_of(p));
  const int64_t heads = sizes.few ? a.kv_heads : a.heads;
  parallel_for(p, a.batch * heads * chunks, 1, [&](int64_t begin, int64_t end, int thread) {
    float *packed = (float *)scratch + thread * sizes.total();
    float *values = packed + round_up(sizes.keys, 16), *scores = values + round_up(sizes.values, 16);
    int64_t packed_for = -1;
    for (int64_t i = begin; i < end; i++) {
      const int64_t item = i / (heads * chunks), head = i / chunks % heads;
      const int64_t kv_head = sizes.few ? head : head / share;
      const int64_t keys = a.lengths ? min_of(a.keys, max_of<int64_t>(0, a.lengths[item])) : a.keys;
      Queries q{a, sizes, item, kv_head, keys, packed, values, scores, scores + round_up(sizes.scores, 16), 0, 0, 0, 0, {}, {}};
      if (sizes.few) {
        q.span = a.queries;
        const int64_t at_once = max_of<int64_t>(1, TILE_ROWS / a.queries);
        for (int64_t h = 0; h < share; h += at_once) {
          q.head = head * share + h, q.rows = min_of(at_once, share - h) * a.queries;
          q.run();
        }
        continue;
      }
      if (packed_for != item * a.kv_heads + kv_head) {
        packed_for = item * a.kv_heads + kv_head;
        const float *k = a.k + item * a.k_batch + kv_head * a.k_head;
        for (int64_t j = 0; j < keys; j += PANEL)
          pack_panel(k + j * a.k_row, 1, a.k_row, a.size, min_of<int64_t>(PANEL, keys - j), packed + j * a.size);
      }
      const int64_t tiles = ceil_div(a.queries, TILE_ROWS), chunk = i % chunks;
      for (int64_t t = chunk * tiles / chunks; t < (chunk + 1) * tiles / chunks; t++) {
        q.head = head, q.first = t * a.queries / tiles;
        q.rows = q.span = (t + 1) * a.queries / tiles - q.first;
        q.run();
      }
    }
  });
}

extern "C" void EPK(rotary_f32)(const float *x, float *out, const float *cosine, const float *sine,
                                const int64_t *positions, int64_t rows, int64_t heads, int64_t size, int64_t half,
                                int64_t row, int64_t head, int64_t out_row, int64_t out_head, int interleaved,
                                Parallel *p) {
  const int64_t next = interleaved ? 1 : half, step = interleaved ? 2 : 1;
  parallel_for(p, rows, max_of<int64_t>(1, 8192 / (heads * size)), [=](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; r++) {
      const int64_t place = (positions ? positions[r] : r) * half;
      for (int64_t h = 0; h < heads; h++) {
        const float *from = x + r * row + h * head;
        float *to = out + r * out_row + h * out_head;
        for (int64_t i = 0; i < half; i++) {
          const float a = from[i * step], b = from[i * step + next], c = cosine[place + i], s = sine[place + i];
          to[i * step] = a * c - b * s;
          to[i * step + next] = b * c + a * s;
        }
        for (int64_t i = 2 * half; i < size && to != from; i++) to[i] = from[i];
      }
    }
  });
}
