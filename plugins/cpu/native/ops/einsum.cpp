// Einsum of two operands that is a batched product: both are turned to [batch, rows, inner], and so is the result.
#include "../kernels/gemm.h"

#include "copy.h"

namespace EPK_NS {
namespace {

// How many axes there are of each sort, then where each is in A, in B and in the result.
struct EinsumAttributes {
  int64_t batch, rows, columns, inner;
  int64_t places[3 * MAX_RANK];  // A: batch, rows, inner; B: batch, columns, inner; result: of its axes in that order
};

// x with its axes in another order; itself where that is the one it has.
const float *turned(epk_context *ctx, const DLTensor &x, const int64_t *order) {
  int64_t dims[MAX_RANK], strides[MAX_RANK], dense[MAX_RANK];
  dense_strides(x, dense);
  bool moves = false;
  for (int i = 0; i < x.ndim; i++) {
    dims[i] = x.shape[order[i]], strides[i] = dense[order[i]];
    moves |= order[i] != i;
  }
  if (!moves) return static_cast<const float *>(x.data);
  auto *to = static_cast<float *>(ctx->scratch(ctx, size_t(epk_size(&x)) * 4 + 64));
  if (to) strided_copy(ctx, static_cast<const char *>(x.data), reinterpret_cast<char *>(to), x.ndim, dims, strides, 4);
  return to;
}

int64_t extent(const DLTensor &x, const int64_t *order, int64_t begin, int64_t count) {
  int64_t n = 1;
  for (int64_t i = begin; i < begin + count; i++) n *= x.shape[order[i]];
  return n;
}

}  // namespace

EPK_OPERATOR(einsum) {
  const auto &how = *static_cast<const EinsumAttributes *>(attributes);
  const DLTensor &a = in[0], &b = in[1];
  const int rank = int(how.batch + how.rows + how.columns);
  if (a.ndim != how.batch + how.rows + how.inner || b.ndim != how.batch + how.columns + how.inner || rank > MAX_RANK) return EPK_UNSUPPORTED;
  const int64_t *of_a = how.places, *of_b = of_a + a.ndim, *of_result = of_b + b.ndim;
  for (int64_t i = 0; i < how.batch; i++)
    if (a.shape[of_a[i]] != b.shape[of_b[i]]) return EPK_UNSUPPORTED;  // sizes of 1 spread
  for (int64_t i = 0; i < how.inner; i++)
    if (a.shape[of_a[how.batch + how.rows + i]] != b.shape[of_b[how.batch + how.columns + i]]) return EPK_UNSUPPORTED;
  int64_t sizes[MAX_RANK], dims[MAX_RANK], strides[MAX_RANK], steps[MAX_RANK], step = 1;
  for (int64_t i = 0; i < how.batch + how.rows; i++) sizes[i] = a.shape[of_a[i]];
  for (int64_t i = 0; i < how.columns; i++) sizes[how.batch + how.rows + i] = b.shape[of_b[how.batch + i]];
  for (int i = rank - 1; i >= 0; i--) steps[i] = step, step *= sizes[i];
  bool moves = false;
  for (int i = 0; i < rank; i++) {
    dims[i] = sizes[of_result[i]], strides[i] = steps[of_result[i]];
    moves |= of_result[i] != i;
  }
  auto *y = static_cast<float *>(ctx->output(ctx, 0, rank, dims));
  if (!y) return EPK_FAILED;
  const int64_t size = epk_size(&out[0]);
  if (size == 0) return EPK_OK;
  EpkGemm g{};
  g.batch = extent(a, of_a, 0, how.batch), g.m = extent(a, of_a, how.batch, how.rows);
  g.n = extent(b, of_b, how.batch, how.columns), g.k = extent(a, of_a, how.batch + how.rows, how.inner);
  if (g.k == 0) return EPK_UNSUPPORTED;
  g.a = turned(ctx, a, of_a), g.b = turned(ctx, b, of_b);
  g.out = moves ? static_cast<float *>(ctx->scratch(ctx, size_t(size) * 4 + 64)) : y;
  auto *offsets = static_cast<int64_t *>(ctx->scratch(ctx, size_t(g.batch) * 24 + 64));
  if (!g.a || !g.b || !g.out || !offsets) return EPK_FAILED;
  for (int64_t i = 0; i < g.batch; i++) {
    offsets[i] = i * g.m * g.k, offsets[g.batch + i] = i * g.n * g.k, offsets[2 * g.batch + i] = i * g.m * g.n;
  }
  g.a_offset = offsets, g.b_offset = offsets + g.batch, g.out_offset = offsets + 2 * g.batch;
  g.a_row = g.k, g.a_column = 1, g.b_row = 1, g.b_column = g.k, g.out_row = g.n;
  g.epilogue.scale = 1.0f;
  void *scratch = ctx->scratch(ctx, size_t(EPK(gemm_scratch_f32)(&g, ctx->threads)) + 64);
  if (!scratch) return EPK_FAILED;
  Threads threads(ctx);
  EPK(gemm_f32)(&g, scratch, &threads);
  if (moves) strided_copy(ctx, reinterpret_cast<const char *>(g.out), reinterpret_cast<char *>(y), rank, dims, strides, 4);
  return EPK_OK;
}

}  // namespace EPK_NS
