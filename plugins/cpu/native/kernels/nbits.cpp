#include "nbits.h"

#include "activate.h"
#include "gemm.h"
#include "tile.h"
#include "transpose.h"

namespace EPK_NS {
namespace {

constexpr int64_t FEW = 4;  // rows for which weights are unpacked as they are used; more: a panel at a time

struct Weights {
  const EpkNBits &g;
  int64_t blocks, block_bytes, zero_bytes;
  explicit Weights(const EpkNBits &n) : g(n) {
    blocks = ceil_div(g.k, g.block);
    block_bytes = g.block * g.bits / 8;
    zero_bytes = ceil_div(blocks * g.bits, 8);
  }
  int zero(int64_t column, int64_t block) const {
    if (!g.zeros) return g.bits == 4 ? 8 : 128;
    const uint8_t *row = g.zeros + column * zero_bytes;
    return g.bits == 8 ? row[block] : (row[block / 2] >> (block % 2 * 4)) & 15;
  }
  // Blocks are whole vectors of bytes.
  bool regular() const { return g.block % (g.bits == 4 ? 2 * VL : VL) == 0 && g.k % g.block == 0; }
};

// A where blocks are regular: for 4 bits, every 2 VL elements as the even ones, then the odd ones (the order in which
// vectors of weights come out of their bytes); and the sums of blocks, if they are wanted.
void arrange(const Weights &w, int64_t begin, int64_t end, float *to, float *sums) {
  const EpkNBits &g = w.g;
  for (int64_t r = begin; r < end; r++)
    for (int64_t b = 0; b < w.blocks; b++) {
      float sum = 0;
      for (int64_t i = 0; i < g.block; i++) {
        const int64_t k = b * g.block + i, lane = i % (2 * VL);
        const float value = g.a[r * g.k + k];
        const int64_t place = g.bits == 4 ? k - lane + lane % 2 * VL + lane / 2 : k;
        to[r * g.k + place] = value;
        sum += value;
      }
      if (sums) sums[r * w.blocks + b] = sum;
    }
}

// M rows by one column.
template <int M> void column(const Weights &w, const float *a, const float *sums, int64_t n, float *out) {
  const EpkNBits &g = w.g;
  vf total[M] = {};
  float shift[M] = {};
  const uint8_t *b = g.b + n * w.blocks * w.block_bytes;
  for (int64_t block = 0; block < w.blocks; block++, b += w.block_bytes) {
    const float *x = a + block * g.block;
    vf acc[M] = {};
    if (g.bits == 4) {
      for (int64_t i = 0; i < w.block_bytes; i += VL) {
        const vi bytes = load_bytes(b + i);
        const vf even = to_float(bytes & 15), odd = to_float(bytes >> 4);
#pragma GCC unroll 4
        for (int r = 0; r < M; r++) {
          acc[r] = fma_of(even, load(x + r * g.k + 2 * i), acc[r]);
          acc[r] = fma_of(odd, load(x + r * g.k + 2 * i + VL), acc[r]);
        }
      }
    } else {
      for (int64_t i = 0; i < w.block_bytes; i += VL) {
        const vf value = to_float(load_bytes(b + i));
#pragma GCC unroll 4
        for (int r = 0; r < M; r++) acc[r] = fma_of(value, load(x + r * g.k + i), acc[r]);
      }
    }
    const float scale = g.scales[n * w.blocks + block], offset = scale * (float)w.zero(n, block);
#pragma GCC unroll 4
    for (int r = 0; r < M; r++) {
      total[r] = fma_of(acc[r], splat(scale), total[r]);
      shift[r] += offset * sums[r * w.blocks + block];
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < M; r++) out[r * g.n + n] = sum_of(total[r]) - shift[r];
}

void columns(const Weights &w, const float *a, const float *sums, int64_t begin, int64_t end) {
  const EpkNBits &g = w.g;
  for (int64_t n = begin; n < end; n++) {
    if (g.m == 1) column<1>(w, a, sums, n, g.out);
    else if (g.m == 2) column<2>(w, a, sums, n, g.out);
    else if (g.m == 3) column<3>(w, a, sums, n, g.out);
    else column<4>(w, a, sums, n, g.out);
  }
  for (int64_t r = 0; r < g.m; r++)
    finish_row(g.epilogue, g.out + r * g.n + begin, g.out + r * g.n + begin, r, begin, end - begin);
}

// `count` weights of a column from the block's beginning.
void unpack(const Weights &w, int64_t n, int64_t block, int64_t count, float *to) {
  const uint8_t *b = w.g.b + (n * w.blocks + block) * w.block_bytes;
  const float scale = w.g.scales[n * w.blocks + block];
  const float shift = -scale * (float)w.zero(n, block);
  if (w.regular()) {  // in the order of arrange
    for (int64_t i = 0; i < w.block_bytes; i += VL) {
      const vi bytes = load_bytes(b + i);
      if (w.g.bits == 8) {
        store(to + i, to_float(bytes) * scale + shift);
      } else {
        store(to + 2 * i, to_float(bytes & 15) * scale + shift);
        store(to + 2 * i + VL, to_float(bytes >> 4) * scale + shift);
      }
    }
    return;
  }
  if (w.g.bits == 8) {
    for (int64_t i = 0; i < count; i++) to[i] = (float)b[i] * scale + shift;
    return;
  }
  for (int64_t i = 0; i + 1 < count; i += 2) {
    to[i] = (float)(b[i / 2] & 15) * scale + shift;
    to[i + 1] = (float)(b[i / 2] >> 4) * scale + shift;
  }
  if (count % 2) to[count - 1] = (float)(b[count / 2] & 15) * scale + shift;
}

// A panel of columns as float32, packed as gemm_pack_f32 packs: some blocks of all columns, then their transposition.
void unpack_panel(const Weights &w, int64_t first, float *panel) {
  const EpkNBits &g = w.g;
  constexpr int64_t STRIP = 256;
  alignas(64) float strip[PANEL * STRIP];
  const int64_t width = min_of<int64_t>(PANEL, g.n - first), size = min_of(STRIP, g.block);
  if (width < PANEL || g.k % BLOCK) memset(panel, 0, (size_t)EPK(gemm_packed_size_f32)(g.k, PANEL));
  const int64_t at_once = STRIP / size;
  for (int64_t block = 0; block < w.blocks; block += at_once) {
    const int64_t k = block * g.block, count = min_of(at_once * g.block, g.k - k);
    for (int64_t j = 0; j < width; j++)
      for (int64_t i = 0; i < count; i += g.block)
        unpack(w, first + j, block + i / g.block, min_of(g.block, count - i), strip + j * STRIP + i);
    transpose_matrix(strip, STRIP, width, count, panel + k * PANEL, PANEL);
  }
}

EpkGemm product(const EpkNBits &g, const float *a, int64_t first, const float *panel) {
  EpkEpilogue e = g.epilogue;
  if (e.bias) e.bias += first;
  if (e.add) e.add += first;
  return {g.m, min_of<int64_t>(PANEL, g.n - first), g.k, a, g.k, 1, nullptr, 0, 0, panel, g.out + first, g.n, 1,
          nullptr, nullptr, nullptr, e};
}

int64_t panel_size(const EpkNBits &g) { return round_up(EPK(gemm_packed_size_f32)(g.k, PANEL), 64); }
int64_t thread_size(const EpkNBits &g) {
  const EpkGemm one = product(g, g.a, 0, (const float *)&g);
  return panel_size(g) + round_up(EPK(gemm_scratch_f32)(&one, 1), 64);
}
bool few(const EpkNBits &g) { return g.m <= FEW && Weights(g).regular(); }

}  // namespace
}  // namespace EPK_NS

using namespace EPK_NS;

extern "C" int64_t EPK(nbits_scratch)(const EpkNBits *g, int threads) {
  if (few(*g)) return (g->m * g->k + g->m * Weights(*g).blocks) * 4;
  return round_up(g->m * g->k * 4, 64) + threads * thread_size(*g);
}

extern "C" void EPK(nbits)(const EpkNBits *nbits, void *scratch, Parallel *p) {
  const EpkNBits &g = *nbits;
  const Weights w(g);
  if (g.m <= 0 || g.n <= 0) return;
  float *a = (float *)scratch, *sums = few(g) ? a + g.m * g.k : nullptr;
  if (w.regular())
    parallel_for(p, g.m, max_of<int64_t>(1, 16384 / g.k), [&](int64_t begin, int64_t end, int) {
      arrange(w, begin, end, a, sums);
    });
  if (few(g)) {
    parallel_for(p, g.n, max_of<int64_t>(16, 65536 / g.k), [&](int64_t begin, int64_t end, int) {
      columns(w, a, sums, begin, end);
    });
    return;
  }
  char *memory = (char *)scratch + round_up(g.m * g.k * 4, 64);
  parallel_for(p, ceil_div(g.n, PANEL), 1, [&](int64_t begin, int64_t end, int thread) {
    char *own = memory + thread * thread_size(g);
    for (int64_t i = begin; i < end; i++) {
      unpack_panel(w, i * PANEL, (float *)own);
      const EpkGemm one = product(g, w.regular() ? a : g.a, i * PANEL, (const float *)own);
      EPK(gemm_f32)(&one, own + panel_size(g), nullptr);
    }
  });
}
