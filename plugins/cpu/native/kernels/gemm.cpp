#include "gemm.h"

#include "tile_f32.h"
#include "transpose.h"

namespace EPK_NS {
namespace {

constexpr int64_t STEP_BLOCK = 768;   // steps of the reduction at once: a panel and a tile's rows fit L2
constexpr int64_t ROW_BLOCK = 12 * TILE_ROWS;
constexpr int64_t FEW_ROWS = 2 * TILE_ROWS;  // below this, packing an unpacked B costs more than it gives

int64_t whole_steps(int64_t k) { return round_up(k, BLOCK); }

// How a product is cut. A task is (product of the batch, block of rows, chunk of panels).
struct Cut {
  int64_t steps, step_blocks;      // steps in a block of the reduction
  int64_t rows, row_blocks;        // rows in a block
  int64_t panels, chunk, chunks;   // panels in all, in a chunk
  bool pack_a, pack_b;             // pack A in blocks of columns, B in panels, on the fly
  int64_t a_size, b_size;          // scratch elements of a thread

  Cut(const EpkGemm &g, int threads) {
    step_blocks = max_of<int64_t>(1, ceil_div(g.k, STEP_BLOCK));
    steps = whole_steps(ceil_div(g.k, step_blocks));
    step_blocks = max_of<int64_t>(1, ceil_div(g.k, max_of<int64_t>(steps, 1)));
    row_blocks = max_of<int64_t>(1, ceil_div(g.m, ROW_BLOCK));
    rows = round_up(ceil_div(g.m, row_blocks), TILE_ROWS);
    row_blocks = ceil_div(g.m, rows);
    panels = ceil_div(g.n, PANEL);
    const int64_t tasks = row_blocks * g.batch;
    chunks = threads == 1 || tasks >= 4 * threads ? 1 : min_of<int64_t>(panels, ceil_div(4 * threads, tasks));
    if (g.m * g.n * g.k < 200000) chunks = 1;
    chunk = ceil_div(panels, chunks);
    chunks = ceil_div(panels, chunk);
    pack_b = !g.packed && (g.m > FEW_ROWS || g.b_column != 1 || g.a_column != 1);
    // Packed rows are padded to blocks, which B must be too.
    const bool padded = g.packed || pack_b;
    pack_a = g.a_column != 1 || (padded && g.m > TILE_ROWS && (chunk > 2 || g.a_row % 256 == 0));
    a_size = pack_a ? rows * steps : 0;
    b_size = g.packed ? 0 : steps * PANEL;  // the last panel is packed in any case, its width is odd
  }
};

// Columns [k, k + steps) of rows [row, row + rows) of A, in blocks of BLOCK columns, each rows x BLOCK; zero behind k.
void pack_rows(const EpkGemm &g, const float *a, int64_t row, int64_t rows, int64_t k, int64_t steps, float *out) {
  const int64_t real = min_of(steps, g.k - k);
  a += row * g.a_row + k * g.a_column;
  for (int64_t b = 0; b * BLOCK < real; b++, out += rows * BLOCK) {
    const int64_t width = min_of<int64_t>(BLOCK, real - b * BLOCK);
    const float *from = a + b * BLOCK * g.a_column;
    if (g.a_column == 1 && width == BLOCK) {
      for (int64_t r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < BLOCK; i += VL) store(out + r * BLOCK + i, load(from + r * g.a_row + i));
    } else {
      memset(out, 0, (size_t)(rows * BLOCK) * 4);
      if (g.a_row == 1) {
        transpose_matrix(from, g.a_column, width, rows, out, BLOCK);
      } else {
        for (int64_t r = 0; r < rows; r++)
          for (int64_t i = 0; i < width; i++) out[r * BLOCK + i] = from[r * g.a_row + i * g.a_column];
      }
    }
  }
}

// Few rows of A by the columns of B, which lie along memory: a dot product each.
void dot_products(const EpkGemm &g, const float *a, const float *b, float *out, int64_t begin, int64_t end,
                  const EpkEpilogue &e) {
  for (int64_t r = 0; r < g.m; r++)
    for (int64_t j = begin; j < end; j += 4) {
      const int64_t columns = min_of<int64_t>(4, end - j);
      const float *x = a + r * g.a_row;
      const float *y[4];
      for (int64_t c = 0; c < 4; c++) y[c] = b + (j + min_of(c, columns - 1)) * g.b_column;
      vf acc[4] = {};
      int64_t k = 0;
      for (; k + VL <= g.k; k += VL)
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) acc[c] = fma_of(load(x + k), load(y[c] + k), acc[c]);
      if (k < g.k)
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) acc[c] = fma_of(load_n(x + k, g.k - k), load_n(y[c] + k, g.k - k), acc[c]);
      float sums[4];
      for (int c = 0; c < 4; c++) sums[c] = sum_of(acc[c]);
      finish_row(e, sums, out + r * g.out_row + j, r, j, columns);
    }
}

struct Task {
  const EpkGemm &g;
  const Cut &cut;
  const float *a, *b;
  float *out;
  EpkEpilogue e;      // its `add` is that of this product
  float *a_pack, *b_pack;

  // One panel of columns by a block of rows, over one block of steps.
  void panel(int64_t p, int64_t row, int64_t rows, int64_t k, int64_t steps, const float *panel, int64_t step) {
    const int64_t column = p * PANEL, width = min_of<int64_t>(PANEL, g.n - column);
    TileF32 t{};
    t.b = panel;
    t.b_step = step;
    if (cut.pack_a) {
      t.a_row = BLOCK, t.a_block = rows * BLOCK;
      t.blocks = ceil_div(steps, BLOCK), t.steps = BLOCK;
    } else {
      t.a_row = g.a_row, t.blocks = 1, t.steps = steps;
    }
    const bool first = k == 0, last = k + steps >= g.k;
    const bool whole = width == PANEL || (width == VL);
    const bool in_tile = whole && is_cheap(e.activation);
    const int vectors = width <= VL ? 1 : 2;
    alignas(64) float edge[TILE_ROWS * PANEL];
    t.accumulate = !first, t.last = last && in_tile;
    t.scale = e.scale, t.c_vector = t.add_vector = VL, t.add_row = e.add_row;
    clip_bounds(e, t.low, t.high);
    t.bias = e.bias ? e.bias + column : nullptr;
    const int64_t tiles = ceil_div(rows, TILE_ROWS);
    for (int64_t i = 0; i < tiles; i++) {
      const int64_t begin = i * rows / tiles, height = (i + 1) * rows / tiles - begin;
      t.a = cut.pack_a ? a_pack + begin * BLOCK : a + (row + begin) * g.a_row + k;
      float *c = out + (row + begin) * g.out_row + column;
      t.c = c, t.c_row = g.out_row;
      t.row_bias = e.row_bias ? e.row_bias + row + begin : nullptr;
      t.add = e.add ? e.add + (row + begin) * e.add_row + column : nullptr;
      if (!whole) {
        t.c = edge, t.c_row = PANEL;
        if (!first)
          for (int64_t r = 0; r < height; r++) memcpy(edge + r * PANEL, c + r * g.out_row, (size_t)width * 4);
      }
      tile_for((int)height, vectors, cut.pack_a)(t);
      if (in_tile) continue;
      for (int64_t r = 0; r < height; r++) {
        if (last) finish_row(e, t.c + r * t.c_row, c + r * g.out_row, row + begin + r, column, width);
        else if (!whole) memcpy(c + r * g.out_row, edge + r * PANEL, (size_t)width * 4);
      }
    }
  }

  void run(int64_t row_block, int64_t chunk) {
    const int64_t row = row_block * cut.rows, rows = min_of(cut.rows, g.m - row);
    const int64_t begin = chunk * cut.chunk, end = min_of(begin + cut.chunk, cut.panels);
    if (cut.pack_b && g.b_row == 1 && g.a_column == 1 && g.m <= 4) {
      dot_products(g, a, b, out, begin * PANEL, min_of(end * PANEL, g.n), e);
      return;
    }
    int64_t k = 0;
    do {  // once where there is nothing to reduce: the epilogue of zero
      const int64_t real = min_of(cut.steps, g.k - k), steps = whole_steps(real);
      if (cut.pack_a) pack_rows(g, a, row, rows, k, steps, a_pack);
      for (int64_t p = begin; p < end; p++) {
        const float *from = b + k * g.b_row + p * PANEL * g.b_column;
        const int64_t width = min_of<int64_t>(PANEL, g.n - p * PANEL);
        if (g.packed) {
          panel(p, row, rows, k, real, g.packed + (p * whole_steps(g.k) + k) * PANEL, PANEL);
        } else if (cut.pack_b || width < PANEL) {
          pack_panel(from, g.b_row, g.b_column, real, width, b_pack);
          memset(b_pack + real * PANEL, 0, (size_t)((steps - real) * PANEL) * 4);
          panel(p, row, rows, k, real, b_pack, PANEL);
        } else {
          panel(p, row, rows, k, real, from, g.b_row);
        }
      }
      k += cut.steps;
    } while (k < g.k);
  }
};

}  // namespace
}  // namespace EPK_NS

using namespace EPK_NS;

extern "C" int64_t EPK(gemm_packed_size_f32)(int64_t k, int64_t n) {
  return whole_steps(k) * round_up(n, PANEL) * 4;
}

extern "C" void EPK(gemm_pack_f32)(const float *b, int64_t k, int64_t n, int64_t b_row, int64_t b_column,
                                   float *packed, Parallel *p) {
  const int64_t steps = whole_steps(k);
  parallel_for(p, ceil_div(n, PANEL), 4, [=](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      float *panel = packed + i * steps * PANEL;
      pack_panel(b + i * PANEL * b_column, b_row, b_column, k, min_of<int64_t>(PANEL, n - i * PANEL), panel);
      memset(panel + k * PANEL, 0, (size_t)((steps - k) * PANEL) * 4);
    }
  });
}

extern "C" int64_t EPK(gemm_scratch_f32)(const EpkGemm *g, int threads) {
  const Cut cut(*g, threads);
  return (int64_t)threads * round_up((cut.a_size + cut.b_size) * 4, 64);
}

extern "C" void EPK(gemm_f32)(const EpkGemm *g, void *scratch, Parallel *p) {
  if (g->m <= 0 || g->n <= 0 || g->batch <= 0) return;
  const Cut cut(*g, threads_of(p));
  const int64_t size = round_up((cut.a_size + cut.b_size) * 4, 64) / 4;
  parallel_for(p, g->batch * cut.row_blocks * cut.chunks, 1, [&](int64_t begin, int64_t end, int thread) {
    float *a_pack = (float *)scratch + thread * size;
    for (int64_t i = begin; i < end; i++) {
      const int64_t item = i / (cut.row_blocks * cut.chunks), rest = i % (cut.row_blocks * cut.chunks);
      Task task{*g, cut, g->a + (g->a_offset ? g->a_offset[item] : 0),
                g->b ? g->b + (g->b_offset ? g->b_offset[item] : 0) : nullptr,
                g->out + (g->out_offset ? g->out_offset[item] : 0), g->epilogue, a_pack, a_pack + cut.a_size};
      if (task.e.add && g->out_offset) task.e.add += g->out_offset[item];
      task.run(rest / cut.chunks, rest % cut.chunks);
    }
  });
}
