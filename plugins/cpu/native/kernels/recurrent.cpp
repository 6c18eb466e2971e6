#include "recurrent.h"

#include "gemm.h"
#include "vmath.h"

namespace EPK_NS {
namespace {

int64_t gates_of(int cell) { return cell == EPK_LSTM ? 4 : cell == EPK_GRU ? 3 : 1; }

// x @ packed + bias
EpkGemm product(const float *x, int64_t rows, int64_t k, int64_t n, const float *packed, const float *bias,
                float *out) {
  return {rows, n, k, x, k, 1, nullptr, 0, 0, packed, out, n, 1, nullptr, nullptr, nullptr,
          {1.0f, EPK_NONE, 0, 0, bias, nullptr, nullptr, 0}};
}

struct Sizes {
  int64_t wide, gates, inner, state, scratch;  // elements; scratch of the products
  Sizes(const EpkRecurrent &c, int threads) {
    wide = gates_of(c.cell) * c.hidden;
    gates = round_up(c.steps * c.batch * wide, 16);
    inner = round_up(c.batch * wide, 16);
    state = round_up(c.batch * c.hidden, 16);
    const EpkGemm all = product(nullptr, c.steps * c.batch, c.inputs, wide, (const float *)&c, nullptr, nullptr);
    const EpkGemm one = product(nullptr, c.batch, c.hidden, wide, (const float *)&c, nullptr, nullptr);
    scratch = max_of(EPK(gemm_scratch_f32)(&all, threads), EPK(gemm_scratch_f32)(&one, threads)) / 4;
    scratch = round_up(scratch, 16);
  }
  // input products, recurrent products, hidden state, cell state, reset state, bias
  int64_t total() const { return gates + inner + 3 * state + round_up(2 * wide, 16) + scratch; }
};

EPK_INLINE vf clipped(vf x, float clip) { return clip > 0 ? vmin(splat(clip), vmax(splat(-clip), x)) : x; }

// Gates i, o, f, c of one batch item; g holds the input's products, r the recurrent ones.
void lstm_step(const EpkRecurrent &c, const float *g, const float *r, const float *peephole, float *h, float *cell) {
  const int64_t n = c.hidden;
  for (int64_t i = 0; i < n; i += VL) {
    const int64_t lanes = min_of<int64_t>(VL, n - i);
    auto gate = [&](int k) { return load_n(g + k * n + i, lanes) + load_n(r + k * n + i, lanes); };
    auto peek = [&](int k) { return load_n(peephole + k * n + i, lanes); };
    vf state = load_n(cell + i, lanes), in = gate(0), out = gate(1), forget = gate(2);
    if (peephole) in += peek(0) * state, forget += peek(2) * state;
    state = vsigmoid(clipped(forget, c.clip)) * state + vsigmoid(clipped(in, c.clip)) * vtanh(clipped(gate(3), c.clip));
    if (peephole) out += peek(1) * state;
    store_n(cell + i, state, lanes);
    store_n(h + i, vsigmoid(clipped(out, c.clip)) * vtanh(clipped(state, c.clip)), lanes);
  }
}

// Gates z, r, h. `inner`: the recurrent product of gate h, already with its bias.
void gru_step(const EpkRecurrent &c, const float *g, const float *r, const float *inner, float *h) {
  const int64_t n = c.hidden;
  for (int64_t i = 0; i < n; i += VL) {
    const int64_t lanes = min_of<int64_t>(VL, n - i);
    const vf z = vsigmoid(clipped(load_n(g + i, lanes) + load_n(r + i, lanes), c.clip));
    vf own = load_n(inner + i, lanes);
    if (!c.reset_first) own *= vsigmoid(clipped(load_n(g + n + i, lanes) + load_n(r + n + i, lanes), c.clip));
    const vf fresh = vtanh(clipped(load_n(g + 2 * n + i, lanes) + own, c.clip)), old = load_n(h + i, lanes);
    store_n(h + i, (1.0f - z) * fresh + z * old, lanes);
  }
}

void rnn_step(const EpkRecurrent &c, const float *g, const float *r, float *h) {
  for (int64_t i = 0; i < c.hidden; i += VL) {
    const int64_t lanes = min_of<int64_t>(VL, c.hidden - i);
    const vf x = clipped(load_n(g + i, lanes) + load_n(r + i, lanes), c.clip);
    store_n(h + i, c.relu ? vmax(vf{}, x) : vtanh(x), lanes);
  }
}

struct Direction {
  const EpkRecurrent &c;
  const Sizes &sizes;
  int64_t index;
  bool backwards;
  const float *w, *r;   // packed; r of the GRU: gates z and r, then h
  float *memory;
  Parallel *p;

  void run() {
    const int64_t n = c.hidden, wide = sizes.wide;
    float *gates = memory, *inner = gates + sizes.gates, *h = inner + sizes.inner, *cell = h + sizes.state;
    float *reset = cell + sizes.state, *bias = reset + sizes.state, *scratch = bias + round_up(2 * wide, 16);
    memset(bias, 0, (size_t)(2 * wide) * 4);
    if (c.bias) memcpy(bias, c.bias + index * 2 * wide, (size_t)(2 * wide) * 4);
    begin(h, c.initial);
    begin(cell, c.cell == EPK_LSTM ? c.initial_cell : nullptr);
    EpkGemm all = product(c.x, c.steps * c.batch, c.inputs, wide, w, bias, gates);
    EPK(gemm_f32)(&all, scratch, p);
    const int64_t first = c.cell == EPK_GRU && c.reset_first ? 2 * n : wide;  // columns made in the first product
    for (int64_t s = 0; s < c.steps; s++) {
      recurrent(h, r, first, bias + wide, inner, scratch);
      if (first < wide) reset_state(s, gates, inner, h, reset, bias + wide, scratch);
      for (int64_t b = 0; b < c.batch; b++) {
        const int64_t steps = c.lengths ? c.lengths[b] : c.steps;
        const int64_t t = backwards ? (s < steps ? steps - 1 - s : s) : s;
        float *out = c.out ? c.out + ((t * c.directions + index) * c.batch + b) * n : nullptr;
        if (s >= steps) {
          if (out) memset(out, 0, (size_t)n * 4);
          continue;
        }
        const float *g = gates + (t * c.batch + b) * wide, *own = inner + b * wide;
        const float *peephole = c.peephole ? c.peephole + index * 3 * n : nullptr;
        if (c.cell == EPK_LSTM) lstm_step(c, g, own, peephole, h + b * n, cell + b * n);
        else if (c.cell == EPK_GRU) gru_step(c, g, own, own + 2 * n, h + b * n);
        else rnn_step(c, g, own, h + b * n);
        if (out) memcpy(out, h + b * n, (size_t)n * 4);
      }
    }
    const int64_t size = c.batch * n;
    if (c.last) memcpy(c.last + index * size, h, (size_t)size * 4);
    if (c.last_cell) memcpy(c.last_cell + index * size, cell, (size_t)size * 4);
  }

  void begin(float *state, const float *initial) const {
    const int64_t size = c.batch * c.hidden;
    if (initial) memcpy(state, initial + index * size, (size_t)size * 4);
    else memset(state, 0, (size_t)size * 4);
  }

  // Columns [0, columns) of the recurrent product of all batch items; rows are `wide` apart.
  void recurrent(const float *h, const float *packed, int64_t columns, const float *bias, float *to, float *scratch) const {
    EpkGemm g = product(h, c.batch, c.hidden, columns, packed, bias, to);
    g.out_row = sizes.wide;
    EPK(gemm_f32)(&g, scratch, p);
  }

  // GRU: gate h sees the state already reset.
  void reset_state(int64_t s, const float *gates, float *inner, const float *h, float *reset, const float *bias,
                   float *scratch) const {
    const int64_t n = c.hidden;
    for (int64_t b = 0; b < c.batch; b++) {
      const int64_t steps = c.lengths ? c.lengths[b] : c.steps;
      const int64_t t = backwards ? (s < steps ? steps - 1 - s : s) : s;
      const float *g = gates + (t * c.batch + b) * sizes.wide + n, *own = inner + b * sizes.wide + n;
      for (int64_t i = 0; i < n; i += VL) {
        const int64_t lanes = min_of<int64_t>(VL, n - i);
        const vf gate = vsigmoid(clipped(load_n(g + i, lanes) + load_n(own + i, lanes), c.clip));
        store_n(reset + b * n + i, gate * load_n(h + b * n + i, lanes), lanes);
      }
    }
    recurrent(reset, r + EPK(gemm_packed_size_f32)(n, 2 * n) / 4, n, bias + 2 * n, inner + 2 * n, scratch);
  }
};

// The GRU's recurrent weights are packed in two parts, so that gate h may come later; `whole` instead of parts where
// they come at once.
int64_t direction_size(int cell, int64_t inputs, int64_t hidden) {
  const int64_t wide = gates_of(cell) * hidden;
  int64_t size = EPK(gemm_packed_size_f32)(inputs, wide) + EPK(gemm_packed_size_f32)(hidden, wide);
  if (cell == EPK_GRU) size += EPK(gemm_packed_size_f32)(hidden, 2 * hidden) + EPK(gemm_packed_size_f32)(hidden, hidden);
  return size;
}

}  // namespace
}  // namespace EPK_NS

using namespace EPK_NS;

extern "C" int64_t EPK(recurrent_packed_size_f32)(int cell, int64_t directions, int64_t inputs, int64_t hidden) {
  return directions * direction_size(cell, inputs, hidden);
}

extern "C" void EPK(recurrent_pack_f32)(int cell, int64_t directions, int64_t inputs, int64_t hidden, const float *w,
                                        const float *r, float *packed, Parallel *p) {
  const int64_t wide = gates_of(cell) * hidden;
  for (int64_t d = 0; d < directions; d++, w += wide * inputs, r += wide * hidden) {
    EPK(gemm_pack_f32)(w, inputs, wide, 1, inputs, packed, p);
    packed += EPK(gemm_packed_size_f32)(inputs, wide) / 4;
    EPK(gemm_pack_f32)(r, hidden, wide, 1, hidden, packed, p);
    packed += EPK(gemm_packed_size_f32)(hidden, wide) / 4;
    if (cell != EPK_GRU) continue;
    EPK(gemm_pack_f32)(r, hidden, 2 * hidden, 1, hidden, packed, p);
    packed += EPK(gemm_packed_size_f32)(hidden, 2 * hidden) / 4;
    EPK(gemm_pack_f32)(r + 2 * hidden * hidden, hidden, hidden, 1, hidden, packed, p);
    packed += EPK(gemm_packed_size_f32)(hidden, hidden) / 4;
  }
}

extern "C" int64_t EPK(recurrent_scratch_f32)(const EpkRecurrent *c, int threads) {
  return Sizes(*c, threads).total() * 4;
}

extern "C" void EPK(recurrent_f32)(const EpkRecurrent *c, void *scratch, Parallel *p) {
  const Sizes sizes(*c, threads_of(p));
  const int64_t size = direction_size(c->cell, c->inputs, c->hidden) / 4;
  const int64_t w_size = EPK(gemm_packed_size_f32)(c->inputs, sizes.wide) / 4;
  const int64_t r_size = EPK(gemm_packed_size_f32)(c->hidden, sizes.wide) / 4;
  for (int64_t d = 0; d < c->directions; d++) {
    const float *w = c->packed + d * size, *r = w + w_size;
    if (c->cell == EPK_GRU && c->reset_first) r += r_size;
    Direction{*c, sizes, d, c->reverse || d == 1, w, r, (float *)scratch, p}.run();
  }
}
