#include "gemm.h"

#include "denormal.h"
#include "tile_f32.h"
#include "transpose.h"

namespace EPK_NS {
namespace {

constexpr int64_t STEP_BLOCK = 768;   // steps of the reduction at once: a panel and a tile's rows fit L2
constexpr int64_t ROW_BLOCK = 16 * TILE_ROWS;  // weights pass once for 197 rows (ViT): they come from beyond L2
constexpr int64_t FEW_ROWS = 2 * TILE_ROWS;  // below this, packing an unpacked B costs more than it gives
constexpr int64_t IN_CACHE = 512 << 10;      // bytes of weights that stay in L2 beside the rows

int64_t whole_steps(int64_t k) { return round_up(k, BLOCK); }

// Rows are shared evenly among tiles.
int64_t tiles_of(int64_t rows) { return ceil_div(rows, TILE_ROWS); }
int64_t tile_begin(int64_t i, int64_t rows) { return i * rows / tiles_of(rows); }

// How a product is cut. A task is (product of the batch, block of rows, chunk of panels).
struct Cut {
  int64_t steps, step_blocks;      // steps in a block of the reduction
  int64_t rows, row_blocks;        // rows in a block
  int64_t panels, chunk, chunks;   // panels in all, in a chunk
  bool pack_a, pack_b;             // pack A in blocks of columns, B in panels, on the fly
  bool shared;                     // the packed A is one for all threads, made before the tasks
  bool rows_first;                 // all panels for a tile of rows, or all rows for a panel
  int64_t shared_size;             // scratch elements of all threads
  int64_t a_size, b_size;          // scratch elements of a thread

  Cut(const EpkGemm &g, int threads) {
    step_blocks = max_of<int64_t>(1, ceil_div(g.k, STEP_BLOCK));
    steps = whole_steps(ceil_div(g.k, step_blocks));
    step_blocks = max_of<int64_t>(1, ceil_div(g.k, max_of<int64_t>(steps, 1)));
    row_blocks = max_of<int64_t>(1, ceil_div(g.m, ROW_BLOCK));
    rows = round_up(ceil_div(g.m, row_blocks), TILE_ROWS);
    row_blocks = ceil_div(g.m, rows);
    panels = ceil_div(g.n, PANEL);
    const int64_t tasks = row_blocks * g.batch, wanted = 6 * threads;
    chunks = threads == 1 || tasks >= wanted ? 1 : min_of<int64_t>(panels, ceil_div(wanted, tasks));
    if (g.m * g.n * g.k < 200000) chunks = 1;
    chunk = ceil_div(panels, chunks);
    chunks = ceil_div(panels, chunk);
    pack_b = !g.packed && (g.m > FEW_ROWS || g.b_column != 1 || g.a_column != 1);
    // Packed rows are padded to blocks, which B must be too.
    const bool padded = g.packed || pack_b;
    pack_a = g.a_column != 1 || (padded && g.m > TILE_ROWS && (panels > 4 || g.a_row % 1024 == 0));
    shared = pack_a && chunks > 1;
    rows_first = g.packed && panels * whole_steps(g.k) * PANEL * 4 <= IN_CACHE;
    shared_size = shared ? round_up(g.batch * g.m * whole_steps(g.k), 16) : 0;
    a_size = pack_a && !shared ? rows * steps : 0;
    b_size = g.packed ? 0 : steps * PANEL;  // the last panel is packed in any case, its width is odd
  }

  int64_t thread_size() const { return round_up(a_size + b_size, 16); }
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

// A block of the reduction for a block of rows.
struct Steps {
  int64_t row, rows;   // rows [row, row + rows)
  int64_t k, steps;    // steps [k, k + steps)
  bool first, last;
};

struct Task {
  const EpkGemm &g;
  const Cut &cut;
  const float *a, *b;
  float *out;
  EpkEpilogue e;       // its `add` is that of this product
  float *shared;       // this product's A, packed for all threads
  float *a_pack, *b_pack;

  // One panel of columns by one tile of a block of rows, over one block of steps.
  void tile(const Steps &s, int64_t column, int64_t begin, int64_t height, const float *panel, int64_t b_step,
            const Ahead &ahead) {
    const int64_t width = min_of<int64_t>(PANEL, g.n - column), row = s.row + begin;
    const bool whole = width == PANEL || width == VL;
    float *c = out + row * g.out_row + column;
    alignas(64) float edge[TILE_ROWS * PANEL];
    TileF32 t{};
    t.b = panel, t.b_step = b_step, t.ahead = ahead;
    if (cut.pack_a) {
      t.a = packed_rows(s) + begin * whole_steps(s.steps), t.a_row = BLOCK, t.a_block = height * BLOCK;
      t.blocks = ceil_div(s.steps, BLOCK), t.steps = BLOCK;
    } else {
      t.a = a + row * g.a_row + s.k, t.a_row = g.a_row, t.blocks = 1, t.steps = s.steps;
    }
    t.accumulate = !s.first, t.last = s.last && whole;
    t.scale = e.scale, t.c_vector = t.add_vector = VL, t.add_row = e.add_row;
    clip_bounds(e, t.low, t.high);
    t.bias = e.bias ? e.bias + column : nullptr;
    t.row_bias = e.row_bias ? e.row_bias + row : nullptr;
    t.add = e.add ? e.add + row * e.add_row + column : nullptr;
    t.c = whole ? c : edge, t.c_row = whole ? g.out_row : PANEL;
    if (!whole && !s.first)
      for (int64_t r = 0; r < height; r++) memcpy(edge + r * PANEL, c + r * g.out_row, (size_t)width * 4);
    const int vectors = width <= VL ? 1 : 2;
    (cut.pack_a ? product_tile_for((int)height, vectors) : tile_for((int)height, vectors, t.a_row))(t);
    if (whole) {
      if (s.last && !is_cheap(e.activation)) activate_all(e, c, height, g.out_row, width / VL, VL);
      return;
    }
    for (int64_t r = 0; r < height; r++) {
      if (s.last) finish_row(e, t.c + r * t.c_row, c + r * g.out_row, row + r, column, width);
      else memcpy(c + r * g.out_row, edge + r * PANEL, (size_t)width * 4);
    }
  }

  // Tiles of a block of rows lie one behind the other, each packed for itself.
  float *packed_rows(const Steps &s) const {
    return cut.shared ? shared + s.row * whole_steps(g.k) + s.k * s.rows : a_pack;
  }

  void pack_tile(const Steps &s, int64_t i) {
    const int64_t begin = tile_begin(i, s.rows), end = tile_begin(i + 1, s.rows);
    pack_rows(g, a, s.row + begin, end - begin, s.k, s.steps, packed_rows(s) + begin * whole_steps(s.steps));
  }

  // `next`: the packed panel that will be wanted after this one, or null.
  void panel(const Steps &s, int64_t p, const float *packed, int64_t b_step, const float *next) {
    const int64_t tiles = tiles_of(s.rows);
    for (int64_t i = 0; i < tiles; i++) {
      const int64_t begin = tile_begin(i, s.rows);
      const Ahead ahead = next && tiles > 1 ? part_of_next(next, s.steps * PANEL * 4, s.steps, i, tiles) : Ahead{};
      tile(s, p * PANEL, begin, tile_begin(i + 1, s.rows) - begin, packed, b_step, ahead);
    }
  }

  Steps steps_from(int64_t row_block, int64_t k) const {
    const int64_t row = row_block * cut.rows;
    return {row, min_of(cut.rows, g.m - row), k, min_of(cut.steps, g.k - k), k == 0, k + cut.steps >= g.k};
  }

  void run(int64_t row_block, int64_t chunk) {
    const int64_t begin = chunk * cut.chunk, end = min_of(begin + cut.chunk, cut.panels);
    if (cut.pack_b && g.b_row == 1 && g.a_column == 1 && g.m <= 4) {
      dot_products(g, a, b, out, begin * PANEL, min_of(end * PANEL, g.n), e);
      return;
    }
    int64_t k = 0;
    do {  // once where there is nothing to reduce: the epilogue of zero
      const Steps s = steps_from(row_block, k);
      for (int64_t i = 0; cut.pack_a && !cut.shared && i < tiles_of(s.rows); i++) pack_tile(s, i);
      if (cut.rows_first) rows_first(s, begin, end);
      else columns_first(s, begin, end);
      k += cut.steps;
    } while (k < g.k);
  }

  const float *packed_panel(int64_t p, int64_t k) const { return g.packed + (p * whole_steps(g.k) + k) * PANEL; }

  // All panels of a tile of rows before the next: A is read once, the panels stay in L2.
  void rows_first(const Steps &s, int64_t first, int64_t end) {
    for (int64_t i = 0; i < tiles_of(s.rows); i++) {
      const int64_t begin = tile_begin(i, s.rows), height = tile_begin(i + 1, s.rows) - begin;
      for (int64_t p = first; p < end; p++) tile(s, p * PANEL, begin, height, packed_panel(p, s.k), PANEL, Ahead{});
    }
  }

  // All tiles of rows of a panel before the next: B is read once, the rows stay in L2.
  void columns_first(const Steps &s, int64_t first, int64_t end) {
    for (int64_t p = first; p < end; p++) {
      if (!g.packed) {
        unpacked_panel(s, p);
        continue;
      }
      const bool turn = p + 1 == end && !s.last;  // to the next block of steps
      const float *next = turn ? packed_panel(first, s.k + cut.steps) : packed_panel(p + 1, s.k);
      panel(s, p, packed_panel(p, s.k), PANEL, p + 1 < cut.panels || turn ? next : nullptr);
    }
  }

  void unpacked_panel(const Steps &s, int64_t p) {
    const int64_t width = min_of<int64_t>(PANEL, g.n - p * PANEL);
    const float *from = b + s.k * g.b_row + p * PANEL * g.b_column;
    if (!cut.pack_b && width == PANEL) {
      panel(s, p, from, g.b_row, nullptr);
      return;
    }
    pack_panel(from, g.b_row, g.b_column, s.steps, width, b_pack);
    memset(b_pack + s.steps * PANEL, 0, (size_t)((whole_steps(s.steps) - s.steps) * PANEL) * 4);
    panel(s, p, b_pack, PANEL, nullptr);
  }
};

// A product of the batch, for one thread.
Task task_of(const EpkGemm &g, const Cut &cut, int64_t item, float *scratch, int thread) {
  float *own = scratch + cut.shared_size + thread * cut.thread_size();
  Task task{g, cut, g.a + (g.a_offset ? g.a_offset[item] : 0), g.b ? g.b + (g.b_offset ? g.b_offset[item] : 0) : nullptr,
            g.out + (g.out_offset ? g.out_offset[item] : 0), g.epilogue, scratch + item * g.m * whole_steps(g.k),
            own, own + cut.a_size};
  if (task.e.add && g.out_offset) task.e.add += g.out_offset[item];
  return task;
}

// Every tile of rows of A by itself, all of its steps.
void pack_shared(const EpkGemm &g, const Cut &cut, float *scratch, Parallel *p) {
  const int64_t tiles = tiles_of(cut.rows);
  parallel_for(p, g.batch * cut.row_blocks * tiles, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t i = begin; i < end; i++) {
      Task task = task_of(g, cut, i / tiles / cut.row_blocks, scratch, thread);
      for (int64_t k = 0; k < g.k; k += cut.steps) {
        const Steps s = task.steps_from(i / tiles % cut.row_blocks, k);
        if (i % tiles < tiles_of(s.rows)) task.pack_tile(s, i % tiles);
      }
    }
  });
}

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
  return (cut.shared_size + threads * cut.thread_size()) * 4;
}

extern "C" void EPK(gemm_f32)(const EpkGemm *g, void *scratch, Parallel *p) {
  if (g->m <= 0 || g->n <= 0 || g->batch <= 0) return;
  const Cut cut(*g, threads_of(p));
  if (cut.shared) pack_shared(*g, cut, (float *)scratch, p);
  const int64_t tasks = cut.row_blocks * cut.chunks;  // of a product
  parallel_for(p, g->batch * tasks, 1, [&](int64_t begin, int64_t end, int thread) {
    const FlushDenormals flush;
    for (int64_t i = begin; i < end; i++)
      task_of(*g, cut, i / tasks, (float *)scratch, thread).run(i % tasks / cut.chunks, i % cut.chunks);
  });
}
