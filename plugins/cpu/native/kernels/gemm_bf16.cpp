#include "activate.h"
#include "bf16.h"
#include "tile_raw.h"

namespace EPK_NS {
namespace {

constexpr int64_t GROUP = 2 * BLOCK;        // columns of A in a packed block
constexpr int64_t ROW_BLOCK = 12 * TILE_ROWS;

EPK_INLINE uint16_t to_bf16(float x) {
  uint32_t b;
  memcpy(&b, &x, 4);
  const uint32_t rounded = (b + 0x7fff + ((b >> 16) & 1)) >> 16;
  return (uint16_t)(x != x ? (b >> 16) | 0x40 : rounded);
}

int64_t whole(int64_t k) { return round_up(k, GROUP); }

struct Cut {
  int64_t rows, row_blocks, panels, chunk, chunks, thread_size;  // bytes
  Cut(const EpkGemm &g, int threads) {
    row_blocks = max_of<int64_t>(1, ceil_div(g.m, ROW_BLOCK));
    rows = round_up(ceil_div(g.m, row_blocks), TILE_ROWS);
    row_blocks = ceil_div(g.m, rows);
    panels = ceil_div(g.n, PANEL);
    const int64_t tasks = row_blocks * g.batch;
    chunks = threads == 1 || tasks >= 4 * threads || g.m * g.n * g.k < 200000
                 ? 1
                 : min_of(panels, ceil_div(4 * (int64_t)threads, tasks));
    chunk = ceil_div(panels, chunks);
    chunks = ceil_div(panels, chunk);
    thread_size = round_up(rows * whole(g.k) * 2, 64);
  }
};

void pack_rows(const EpkGemm &g, const float *a, int64_t rows, uint16_t *out) {
  for (int64_t k = 0; k < g.k; k += GROUP, out += rows * GROUP) {
    const int64_t width = min_of(GROUP, g.k - k);
    for (int64_t r = 0; r < rows; r++) {
      const float *from = a + r * g.a_row + k;
      uint16_t *to = out + r * GROUP;
      if (width == GROUP) {
        for (int64_t i = 0; i < GROUP; i++) to[i] = to_bf16(from[i]);
        continue;
      }
      for (int64_t i = 0; i < GROUP; i++) to[i] = i < width ? to_bf16(from[i]) : 0;
    }
  }
}

}  // namespace
}  // namespace EPK_NS

using namespace EPK_NS;

extern "C" int64_t EPK(gemm_packed_size_bf16)(int64_t k, int64_t n) { return whole(k) * round_up(n, PANEL) * 2; }

extern "C" void EPK(gemm_pack_bf16)(const float *b, int64_t k, int64_t n, int64_t b_row, int64_t b_column,
                                    void *packed, Parallel *p) {
  parallel_for(p, ceil_div(n, PANEL), 4, [=](int64_t begin, int64_t end, int) {
    for (int64_t panel = begin; panel < end; panel++) {
      uint16_t *to = (uint16_t *)packed + panel * whole(k) * PANEL;
      const int64_t column = panel * PANEL, width = min_of<int64_t>(PANEL, n - column);
      for (int64_t i = 0; i < whole(k); i++)
        for (int64_t j = 0; j < PANEL; j++)
          to[(i / 2 * PANEL + j) * 2 + i % 2] = i < k && j < width ? to_bf16(b[i * b_row + (column + j) * b_column]) : 0;
    }
  });
}

extern "C" int64_t EPK(gemm_scratch_bf16)(const EpkGemm *g, int threads) {
  return threads * Cut(*g, threads).thread_size;
}

extern "C" void EPK(gemm_bf16)(const EpkGemm *gemm, void *scratch, Parallel *p) {
  const EpkGemm &g = *gemm;
  if (g.m <= 0 || g.n <= 0) return;
  const Cut cut(g, threads_of(p));
  parallel_for(p, g.batch * cut.row_blocks * cut.chunks, 1, [&](int64_t begin, int64_t end, int thread) {
    uint16_t *a_pack = (uint16_t *)((char *)scratch + thread * cut.thread_size);
    alignas(64) float sums[TILE_ROWS * PANEL];
    for (int64_t i = begin; i < end; i++) {
      const int64_t item = i / (cut.row_blocks * cut.chunks), block = i / cut.chunks % cut.row_blocks;
      const int64_t row = block * cut.rows, rows = min_of(cut.rows, g.m - row);
      const int64_t first = i % cut.chunks * cut.chunk, last = min_of(first + cut.chunk, cut.panels);
      pack_rows(g, g.a + (g.a_offset ? g.a_offset[item] : 0) + row * g.a_row, rows, a_pack);
      float *out = g.out + (g.out_offset ? g.out_offset[item] : 0);
      EpkEpilogue e = g.epilogue;
      if (e.add && g.out_offset) e.add += g.out_offset[item];
      const int64_t tiles = ceil_div(rows, TILE_ROWS);
      TileRaw<MulBf16> t{};
      t.a_row = BLOCK, t.a_block = rows * BLOCK, t.blocks = whole(g.k) / GROUP, t.steps = BLOCK;
      t.b_step = PANEL, t.sums = (int32_t *)sums, t.vectors = 2;
      for (int64_t panel = first; panel < last; panel++) {
        t.b = (const int32_t *)((const uint16_t *)g.packed + panel * whole(g.k) * PANEL);
        const int64_t column = panel * PANEL, width = min_of<int64_t>(PANEL, g.n - column);
        for (int64_t j = 0; j < tiles; j++) {
          const int64_t top = j * rows / tiles;
          t.rows = (int)((j + 1) * rows / tiles - top);
          t.a = (const int32_t *)a_pack + top * BLOCK;
          tile_raw(t);
          for (int64_t r = 0; r < t.rows; r++)
            finish_row(e, sums + r * PANEL, out + (row + top + r) * g.out_row + column, row + top + r, column, width);
        }
      }
    }
  });
}
