#include "denormal.h"
#include "pack16.h"
#include "tile_f32.h"
#include "transpose.h"

namespace EPK_NS {
namespace {

constexpr int64_t STEP_BLOCK = 768;  // steps of the reduction at once: a panel and a block of rows fit L2
constexpr int64_t ROW_BLOCK = 12 * TILE_ROWS;

// Rows that a thread has packed: a block of them, in as many blocks of steps as its scratch holds.
struct PackedRows {
  int64_t row;        // of the block; -1: none yet
  int64_t scaled;     // a bit for each block of steps: it is of halves
  int64_t done;       // a bit for each block of steps
  int64_t unused[5];  // a cache line
};

// How a product is cut. A task is (block of rows, chunk of panels).
struct Cut {
  int64_t steps, rows, row_blocks, panels, chunk, chunks;
  bool keep;  // all blocks of steps of packed rows: the chunks of a block of rows would pack them again
  int64_t a_size, b_size, thread_size;  // bytes of scratch: a block of rows and steps, a panel, all of a thread
  Cut(const EpkGemm16 &g, int threads) {
    const int64_t step_blocks = max_of<int64_t>(1, ceil_div(g.k, STEP_BLOCK));
    steps = round_up(ceil_div(g.k, step_blocks), BLOCK);
    row_blocks = ceil_div(g.m, ROW_BLOCK);
    rows = round_up(ceil_div(g.m, row_blocks), TILE_ROWS);
    row_blocks = ceil_div(g.m, rows);
    panels = ceil_div(g.n, WIDE_PANEL);
    chunks = threads == 1 || row_blocks >= 4 * threads || g.m * g.n * g.k < 200000
                 ? 1
                 : min_of(panels, ceil_div(4 * (int64_t)threads, row_blocks));
    chunk = ceil_div(panels, chunks);
    chunks = ceil_div(panels, chunk);
    a_size = round_up(rows * (steps + 1) * 4, 64);  // with an exponent for each row
    b_size = steps * WIDE_PANEL * 4;
    keep = chunks > 1 && step_blocks <= 63;
    thread_size = (int64_t)sizeof(PackedRows) + (keep ? step_blocks : 1) * a_size + b_size;
  }
};

struct Task {
  const EpkGemm16 &g;
  const Cut &cut;
  int form;
  char *scratch;             // of this thread
  int64_t row, rows;         // of the block
  float *a_pack, *row_exponent, *wide;
  int64_t k, steps, blocks;  // of the block of steps; `steps` are real, blocks whole
  bool scaled;               // the block is of halves

  // One block of columns of one row of A; zero behind k.
  const float *block_of(int64_t r, int64_t b, float *edge) const {
    const float *x = g.a + (row + r) * g.a_row + (k / BLOCK + b) * g.a_block;
    const int64_t width = steps - b * BLOCK;
    if (width >= BLOCK) return x;
    for (int64_t i = 0; i < BLOCK; i++) edge[i] = i < width ? x[i] : 0.0f;
    return edge;
  }

  void pack_floats() {
    alignas(64) float edge[BLOCK];
    for (int64_t b = 0; b < blocks; b++)
      for (int64_t r = 0; r < rows; r++) {
        const float *x = block_of(r, b, edge);
        float *to = a_pack + (b * rows + r) * BLOCK;
#pragma GCC unroll 4
        for (int i = 0; i < BLOCK; i += VL) store(to + i, form == EPK_F16 ? load(x + i) : round_bf16(load(x + i)));
      }
  }

  void pack_pairs() {
    alignas(64) float edge[BLOCK];
    for (int64_t b = 0; b < blocks; b++)
      for (int64_t r = 0; r < rows; r++) {
        const float *x = block_of(r, b, edge);
        uint16_t *to = (uint16_t *)a_pack + (b * rows + r) * BLOCK;
        for (int i = 0; i < BLOCK; i++) to[i] = bf16_of(x[i]);
      }
  }

  // False where the block's numbers do not fit.
  bool pack_halves() {
#if EPK_HALF_TILES
    alignas(64) float edge[BLOCK];
    for (int64_t r = 0; r < rows; r++) {
      vi most{};
      for (int64_t b = 0; b < blocks; b++) {
        const vi x = bits(load(block_of(r, b, edge))) & 0x7fffffff;
        most = most > x ? most : x;
      }
      int exponent;
      if (!exponent_of_bits(largest(most), exponent)) return false;
      vi inexact{};
      const float factor = power_of_two(TOP_A - exponent);
      row_exponent[r] = (float)(exponent - TOP_A);
      for (int64_t b = 0; b < blocks; b++)
        store_as((int32_t *)a_pack + (b * rows + r) * BLOCK, twice_half(load(block_of(r, b, edge)), factor, inexact));
      if (total(inexact) * FEW > steps) return false;
    }
    return true;
#else
    return false;
#endif
  }

  // The rows of this block of steps, unless the chunk before this one has left them.
  void pack() {
    auto &packed = *(PackedRows *)scratch;
    const int64_t place = cut.keep ? k / cut.steps : 0, bit = (int64_t)1 << place;
    a_pack = (float *)(scratch + sizeof(PackedRows) + place * cut.a_size), row_exponent = a_pack + rows * cut.steps;
    blocks = ceil_div(steps, BLOCK);
    if (packed.row != row || !cut.keep) packed = PackedRows{row, 0, 0, {}};
    if (!(packed.done & bit)) {
      const bool halves = form == EPK_BF16_HALF && pack_halves();
      if (form == EPK_BF16_DOT) pack_pairs();
      else if (!halves) pack_floats();
      packed.done |= bit, packed.scaled |= halves ? bit : 0;
    }
    scaled = packed.scaled & bit;
  }

  // The panel's steps as float32.
  void widen_panel(const Panel16 &panel) const {
    const uint16_t *from = panel.steps() + k * WIDE_PANEL;
    vf exponent[WIDE_PANEL / VL];
    for (int v = 0; v < WIDE_PANEL / VL; v++) exponent[v] = load(panel.exponent + v * VL);
    for (int64_t i = 0; i < blocks * BLOCK; i++)
#pragma GCC unroll 4
      for (int v = 0; v < WIDE_PANEL / VL; v++) {
        const uint16_t *x = from + i * WIDE_PANEL + v * VL;
        const vf y = form == EPK_BF16_WIDE ? load_bf16(x) : load_f16(x);
        store(wide + i * WIDE_PANEL + v * VL, form == EPK_BF16_HALF ? scale_by(y, exponent[v]) : y);
      }
  }

  // Sums of rows [top, top + height) of the block by one panel; `ahead`: what its left half, its right half and the whole fetch meanwhile.
  void tile(const Panel16 &panel, int64_t top, int height, int64_t width, const Ahead *ahead, float *sums) const {
    if (scaled) {
      TileHalf t{};
      t.a = (const int32_t *)a_pack + top * BLOCK, t.a_row = BLOCK, t.a_block = rows * BLOCK, t.blocks = blocks;
      t.b = panel.steps() + k * WIDE_PANEL, t.ahead = ahead[2];
      t.sums = sums, t.rows = height, t.vectors = width <= HALF_LANES ? 1 : 2;
      return tile_half(t);
    }
    for (int64_t half = 0; half * PANEL < width; half++) {
      if (form == EPK_BF16_DOT) {
        TileRaw<MulBf16> t{};
        t.ahead = ahead[half];
        t.a = (const int32_t *)a_pack + top * (BLOCK / 2), t.a_row = BLOCK / 2, t.a_block = rows * (BLOCK / 2);
        t.blocks = blocks, t.steps = BLOCK / 2;
        t.b = (const int32_t *)(panel.steps() + k * WIDE_PANEL) + half * PANEL, t.b_step = WIDE_PANEL;
        t.sums = (int32_t *)sums + half * PANEL, t.rows = height, t.vectors = 2;
        tile_raw(t);
        continue;
      }
      TileF32 t{};
      t.ahead = ahead[half];
      t.a = a_pack + top * BLOCK, t.a_row = BLOCK, t.a_block = rows * BLOCK, t.blocks = blocks, t.steps = BLOCK;
      t.b = wide + half * PANEL, t.b_step = WIDE_PANEL;
      t.c = sums + half * PANEL, t.c_row = WIDE_PANEL, t.c_vector = VL;
      const int vectors = width - half * PANEL <= VL ? 1 : 2;
      product_tile_for(height, vectors)(t);
    }
  }

  void finish(const Panel16 &panel, const float *sums, int64_t r, int64_t column, int64_t width) const {
    const Finish16 end{g.epilogue, g.out_block, k == 0, k + steps >= g.k, scaled ? panel.exponent : nullptr};
    const EpkEpilogue &e = g.epilogue;
    const int64_t place = column / BLOCK * g.out_block + (row + r) * g.out_row;
    const float *add = !e.add ? nullptr : g.out_block == BLOCK ? e.add + (row + r) * e.add_row + column : e.add + place;
    end.row(sums, scaled ? row_exponent[r] : 0.0f, column, width, g.out + place, add,
            e.row_bias ? e.row_bias[row + r] : 0.0f);
  }

  void run(int64_t first_panel, int64_t last_panel) {
    alignas(64) float sums[TILE_ROWS * WIDE_PANEL];
    for (k = 0; k < g.k; k += cut.steps) {
      steps = min_of(cut.steps, g.k - k);
      pack();
      for (int64_t p = first_panel; p < last_panel; p++) {
        const Panel16 &panel = panel_at(p);
        const int64_t column = p * WIDE_PANEL, width = min_of<int64_t>(WIDE_PANEL, g.n - column);
        if (!scaled && form != EPK_BF16_DOT) widen_panel(panel);
        const int64_t tiles = ceil_div(rows, TILE_ROWS);
        for (int64_t i = 0; i < tiles; i++) {
          const int64_t top = i * rows / tiles, height = (i + 1) * rows / tiles - top;
          const Ahead ahead[] = {ahead_of(p, 2 * i, 2 * tiles), ahead_of(p, 2 * i + 1, 2 * tiles), ahead_of(p, i, tiles)};
          tile(panel, top, (int)height, width, ahead, sums);
          for (int64_t r = 0; r < height; r++) finish(panel, sums + r * WIDE_PANEL, top + r, column, width);
        }
      }
    }
  }

  // The next panel comes while this one is computed: each of `parts` pieces fetches its part.
  Ahead ahead_of(int64_t p, int64_t part, int64_t parts) const {
    if (p + 1 >= cut.panels) return {};
    const int64_t own = form == EPK_BF16_DOT ? blocks * BLOCK / 2 : blocks * BLOCK;
    return part_of_next(panel_at(p + 1).steps() + k * WIDE_PANEL, blocks * BLOCK * WIDE_PANEL * 2, own, part, parts);
  }

  const Panel16 &panel_at(int64_t p) const {
    return *(const Panel16 *)((const char *)g.packed + sizeof(Header16) + p * Panel16::bytes(g.k));
  }
};

// A panel of B as it comes: visit(step, vector of columns, its numbers) for all, zeros behind the last column.
struct Columns16 {
  const float *b;
  int64_t k, width, b_row, b_column;

  template <class Visit> void visit(const Visit &visit) const {
    constexpr int64_t STEPS = 64;
    alignas(64) float part[2][STEPS * PANEL];
    for (int64_t first = 0; first < k; first += STEPS) {
      const int64_t steps = min_of(STEPS, k - first);
      for (int64_t h = 0; h < 2; h++) {
        const float *from = b + first * b_row + h * PANEL * b_column;
        if (width > h * PANEL) pack_panel(from, b_row, b_column, steps, min_of<int64_t>(PANEL, width - h * PANEL), part[h]);
        else memset(part[h], 0, sizeof part[h]);
      }
      for (int64_t i = 0; i < steps; i++)
        for (int v = 0; v < WIDE_PANEL / VL; v++)
          visit(first + i, v, load(part[v * VL / PANEL] + i * PANEL + v * VL % PANEL));
    }
  }
};

// The factors that make halves of the columns' numbers, and the exponents that take them back; false: some are not finite.
bool find_scales(const Columns16 &columns, Panel16 &panel, float *factors) {
  int32_t most[WIDE_PANEL] = {};
  columns.visit([&](int64_t, int v, vf x) {
    const vi here = load_as<vi>(most + v * VL), own = bits(x) & 0x7fffffff;
    store_as(most + v * VL, own > here ? own : here);
  });
  for (int j = 0; j < WIDE_PANEL; j++) {
    int exponent;
    if (!exponent_of_bits(most[j], exponent)) return false;
    factors[j] = power_of_two(TOP_B - exponent), panel.exponent[j] = (float)(exponent - TOP_B);
  }
  return true;
}

// False: the numbers do not fit halves.
bool pack_numbers(const Columns16 &columns, int form, Panel16 &panel) {
  typedef uint16_t narrow __attribute__((vector_size(VL * 2)));
  float factors[WIDE_PANEL];
  int32_t inexact[WIDE_PANEL] = {};
  if (form == EPK_BF16_HALF && !find_scales(columns, panel, factors)) return false;
  columns.visit([&](int64_t i, int v, vf x) {
    uint16_t *to = panel.steps() + i * WIDE_PANEL + v * VL;
    if (form == EPK_F16) return store_f16(to, x);
    const vf y = round_bf16(x);
    if (form == EPK_BF16_WIDE) return store_as(to, __builtin_convertvector((vu)bits(y) >> 16, narrow));
    if (form == EPK_BF16_DOT) {
      int32_t *pairs = (int32_t *)panel.steps() + i / 2 * WIDE_PANEL + v * VL;
      return store_as(pairs, i % 2 ? load_as<vi>(pairs) | bits(y) : (vi)((vu)bits(y) >> 16));
    }
    const vf half = y * load(factors + v * VL);
    const vi small = (vi)(abs_of(half) < EXACT) & (vi)(half != 0.0f);
    store_as(inexact + v * VL, load_as<vi>(inexact + v * VL) - small);
    store_f16(to, half);
  });
  for (int j = 0; j < WIDE_PANEL; j++)
    if (inexact[j] * FEW > columns.k) return false;
  return true;
}

}  // namespace
}  // namespace EPK_NS

using namespace EPK_NS;

extern "C" int64_t EPK(gemm16_packed_size)(int64_t k, int64_t n) {
  return (int64_t)sizeof(Header16) + ceil_div(n, WIDE_PANEL) * Panel16::bytes(k);
}

extern "C" void EPK(gemm16_pack)(const float *b, int64_t k, int64_t n, int64_t b_row, int64_t b_column, int form,
                                 void *packed, Parallel *p) {
  volatile bool fits = true;
  parallel_for(p, ceil_div(n, WIDE_PANEL), 4, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      Panel16 &panel = *(Panel16 *)((char *)packed + sizeof(Header16) + i * Panel16::bytes(k));
      memset((void *)&panel, 0, (size_t)Panel16::bytes(k));
      const int64_t column = i * WIDE_PANEL, width = min_of<int64_t>(WIDE_PANEL, n - column);
      if (!pack_numbers({b + column * b_column, k, width, b_row, b_column}, form, panel)) fits = false;
    }
  });
  if (!fits) return EPK(gemm16_pack)(b, k, n, b_row, b_column, EPK_BF16_WIDE, packed, p);
  *(Header16 *)packed = Header16{form, {}};
}

extern "C" int64_t EPK(gemm16_scratch)(const EpkGemm16 *g, int threads) {
  return g->m <= 0 ? 0 : threads * Cut(*g, threads).thread_size;
}

extern "C" void EPK(gemm16)(const EpkGemm16 *gemm, void *scratch, Parallel *p) {
  const EpkGemm16 &g = *gemm;
  if (g.m <= 0 || g.n <= 0) return;
  const Cut cut(g, threads_of(p));
  for (int i = 0; i < threads_of(p); i++) *(PackedRows *)((char *)scratch + i * cut.thread_size) = PackedRows{-1, 0, 0, {}};
  parallel_for(p, cut.row_blocks * cut.chunks, 1, [&](int64_t begin, int64_t end, int thread) {
    const FlushDenormals flush;
    char *own = (char *)scratch + thread * cut.thread_size;
    for (int64_t i = begin; i < end; i++) {
      const int64_t row = i / cut.chunks * cut.rows, rows = min_of(cut.rows, g.m - row);
      const int64_t first = i % cut.chunks * cut.chunk;
      Task task{g, cut, ((const Header16 *)g.packed)->form, own, row, rows, nullptr, nullptr,
                (float *)(own + cut.thread_size - cut.b_size), 0, 0, 0, false};
      task.run(first, min_of(first + cut.chunk, cut.panels));
    }
  });
}
