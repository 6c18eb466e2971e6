#include "requantise.h"
#include "tile_raw.h"

namespace EPK_NS {
namespace {

constexpr int64_t GROUP = 4 * BLOCK;  // bytes of a row of a packed block of A

int64_t steps_of(int64_t k) { return round_up(k, GROUP) / 4; }
int64_t panel_bytes(int64_t k) { return (int64_t)sizeof(Columns) + steps_of(k) * PANEL * 4; }

constexpr int64_t ROW_BLOCK = 12 * TILE_ROWS;

struct Cut {
  int64_t rows, row_blocks, panels, chunk, chunks, a_size, thread_size;
  Cut(const EpkGemmInt8 &g, int threads) {
    row_blocks = max_of<int64_t>(1, ceil_div(g.m, ROW_BLOCK));
    rows = round_up(ceil_div(g.m, row_blocks), TILE_ROWS);
    row_blocks = ceil_div(g.m, rows);
    panels = ceil_div(g.n, PANEL);
    const int64_t tasks = row_blocks * g.batch;
    chunks = threads == 1 || tasks >= 4 * threads || g.m * g.n * g.k < 500000
                 ? 1
                 : min_of(panels, ceil_div(4 * (int64_t)threads, tasks));
    chunk = ceil_div(panels, chunks);
    chunks = ceil_div(panels, chunk);
    a_size = rows * steps_of(g.k) * 4;
    thread_size = round_up(a_size + rows * 4, 64);  // and the sums of the rows
  }
};

// Rows of A as blocks of GROUP columns, unsigned; their sums.
void pack_rows(const EpkGemmInt8 &g, const uint8_t *a, int64_t rows, uint8_t *out, int32_t *totals) {
  const uint8_t flip = g.a_signed ? 0x80 : 0;
  memset(totals, 0, (size_t)rows * 4);
  for (int64_t k = 0; k < g.k; k += GROUP, out += rows * GROUP) {
    const int64_t width = min_of(GROUP, g.k - k);
    for (int64_t r = 0; r < rows; r++) {
      const uint8_t *from = a + r * g.a_row + k;
      uint8_t *to = out + r * GROUP;
      int32_t total = 0;
      if (width == GROUP) {
        for (int64_t i = 0; i < GROUP; i++) {
          to[i] = from[i] ^ flip;
          total += to[i];
        }
      } else {
        for (int64_t i = 0; i < width; i++) {
          to[i] = from[i] ^ flip;
          total += to[i];
        }
        memset(to + width, 0, (size_t)(GROUP - width));
      }
      totals[r] += total;
    }
  }
}

// As many rows of B as make whole lanes, for rows whose columns are neighbours; how many.
int64_t pack_rows_of_four(const uint8_t *b, int64_t k, int64_t row, int64_t width, uint8_t flip, uint8_t *to,
                          int32_t *totals) {
  int64_t i = 0;
  for (; i + 4 <= k; i += 4, to += PANEL * 4) {
    const uint8_t *x = b + i * row, *y = x + row, *z = y + row, *w = z + row;
    for (int64_t j = 0; j < width; j++) {
      const uint8_t p = x[j] ^ flip, q = y[j] ^ flip, r = z[j] ^ flip, s = w[j] ^ flip;
      const uint32_t lane = p | (uint32_t)q << 8 | (uint32_t)r << 16 | (uint32_t)s << 24;
      memcpy(to + 4 * j, &lane, 4);
      totals[j] += (int8_t)p + (int8_t)q + (int8_t)r + (int8_t)s;
    }
  }
  return i;
}

}  // namespace
}  // namespace EPK_NS

using namespace EPK_NS;

extern "C" int64_t EPK(gemm_packed_size_int8)(int64_t k, int64_t n) { return ceil_div(n, PANEL) * panel_bytes(k); }

extern "C" void EPK(gemm_pack_int8)(const void *b, int64_t k, int64_t n, int64_t b_row, int64_t b_column, int b_signed,
                                    const void *b_zero, int64_t zeros, void *packed, Parallel *p) {
  const uint8_t flip = b_signed ? 0 : 0x80;
  parallel_for(p, ceil_div(n, PANEL), 4, [=](int64_t begin, int64_t end, int) {
    for (int64_t panel = begin; panel < end; panel++) {
      uint8_t *to = (uint8_t *)packed + panel * panel_bytes(k);
      memset(to, 0, (size_t)panel_bytes(k));
      Columns &c = *(Columns *)to;
      to += sizeof(Columns);
      const int64_t width = min_of<int64_t>(PANEL, n - panel * PANEL);
      const uint8_t *from = (const uint8_t *)b + panel * PANEL * b_column;
      for (int64_t j = 0; j < width; j++) {
        const uint8_t *zero = (const uint8_t *)b_zero + (zeros > 1 ? panel * PANEL + j : 0);
        c.zero[j] = (int8_t)((b_zero ? *zero : 0) ^ flip);
      }
      int64_t done = 0;
      if (b_column == 1) done = pack_rows_of_four(from, k, b_row, width, flip, to, c.total);
      for (int64_t j = 0; j < width; j++) {
        for (int64_t i = done; i < k; i++) {
          const uint8_t value = from[i * b_row + j * b_column] ^ flip;
          to[(i / 4 * PANEL + j) * 4 + i % 4] = value;
          c.total[j] += (int8_t)value;
        }
      }
    }
  });
}

extern "C" int64_t EPK(gemm_scratch_int8)(const EpkGemmInt8 *g, int threads) {
  return threads * Cut(*g, threads).thread_size;
}

extern "C" void EPK(gemm_int8)(const EpkGemmInt8 *gemm, void *scratch, Parallel *p) {
  const EpkGemmInt8 &g = *gemm;
  if (g.m <= 0 || g.n <= 0) return;
  const Cut cut(g, threads_of(p));
  const int32_t a_zero = g.a_signed ? g.a_zero + 128 : g.a_zero;
  const int64_t size = result_size(g.finish.result);
  parallel_for(p, g.batch * cut.row_blocks * cut.chunks, 1, [&](int64_t begin, int64_t end, int thread) {
    uint8_t *a_pack = (uint8_t *)scratch + thread * cut.thread_size;
    int32_t *totals = (int32_t *)(a_pack + cut.a_size);
    alignas(64) int32_t sums[TILE_ROWS * PANEL];
    for (int64_t i = begin; i < end; i++) {
      const int64_t item = i / (cut.row_blocks * cut.chunks), block = i / cut.chunks % cut.row_blocks;
      const int64_t row = block * cut.rows, rows = min_of(cut.rows, g.m - row);
      const int64_t first = i % cut.chunks * cut.chunk, last = min_of(first + cut.chunk, cut.panels);
      pack_rows(g, (const uint8_t *)g.a + (g.a_offset ? g.a_offset[item] : 0) + row * g.a_row, rows, a_pack, totals);
      uint8_t *out = (uint8_t *)g.out + ((g.out_offset ? g.out_offset[item] : 0) + row * g.out_row) * size;
      const int64_t tiles = ceil_div(rows, TILE_ROWS);
      TileRaw<MulInt8> t{};
      t.a_row = BLOCK, t.a_block = rows * BLOCK, t.blocks = steps_of(g.k) / BLOCK, t.steps = BLOCK;
      t.b_step = PANEL, t.sums = sums;
      for (int64_t panel = first; panel < last; panel++) {
        const uint8_t *weights = (const uint8_t *)g.packed + panel * panel_bytes(g.k);
        const Columns &columns = *(const Columns *)weights;
        t.b = (const int32_t *)(weights + sizeof(Columns));
        const int64_t column = panel * PANEL, width = min_of<int64_t>(PANEL, g.n - column);
        t.vectors = width <= VL ? 1 : 2;
        for (int64_t j = 0; j < tiles; j++) {
          const int64_t top = j * rows / tiles;
          t.rows = (int)((j + 1) * rows / tiles - top);
          t.a = (const int32_t *)a_pack + top * BLOCK;
          tile_raw(t);
          for (int64_t r = 0; r < t.rows; r++) {
            int32_t *own = sums + r * PANEL;
            for (int lane = 0; lane < t.vectors * VL; lane += VL)
              store_as(own + lane, correct(own, columns, lane, a_zero, totals[top + r], (int32_t)g.k));
            requantise_row(g.finish, own, column, width, out + ((top + r) * g.out_row + column) * size);
          }
        }
      }
    }
  });
}
