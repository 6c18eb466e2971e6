// MatMul, Gemm and their fused forms: shapes, batches and epilogues around the float32 product.
#include "../kernels/gemm.h"
#include "../kernels/gemm16.h"

#include "ops.h"

namespace EPK_NS {
namespace {

enum { MATMUL, GEMM };
enum { NOT_PACKED, PACKED, PACKED_16 };

struct GemmAttributes {
  int32_t form;              // MATMUL: any ranks, batches broadcast. GEMM: two matrices
  int32_t transpose_a, transpose_b;  // of the last two axes
  int32_t packed;            // the second input is B as gemm_pack wrote it, [k, n] of the product; which way
  int64_t k, n;              // of a packed B
  float alpha, beta;         // scales of the product and of C
  int32_t activation;        // EpkActivation
  float x, y;                // its parameters
  int32_t unused;
};

// The two last axes of an operand, and what is before them.
struct Side {
  const float *data;
  int64_t rows, columns, row, column;  // sizes and strides of the matrix
  int batch_rank;
  const int64_t *batch;
  bool vector;

  Side(const DLTensor &t, bool transpose, bool left) {
    data = static_cast<const float *>(t.data);
    vector = t.ndim == 1;
    rows = vector ? (left ? 1 : t.shape[0]) : t.shape[t.ndim - 2];
    columns = vector ? (left ? t.shape[0] : 1) : t.shape[t.ndim - 1];
    row = columns;
    column = 1;
    batch_rank = vector ? 0 : t.ndim - 2;
    batch = t.shape;
    if (transpose && !vector) {
      int64_t swap = rows;
      rows = columns, columns = swap;
      row = 1, column = rows;
    }
  }
};

// Elements from the start to each matrix of a broadcast batch.
void batch_offsets(const int64_t *batch, int rank, const Side &side, int64_t count, int64_t *offsets) {
  int64_t strides[MAX_RANK], stride = side.rows * side.columns;
  for (int i = rank - 1, j = side.batch_rank - 1; i >= 0; i--, j--) {
    int64_t own = j >= 0 ? side.batch[j] : 1;
    strides[i] = own == 1 ? 0 : stride;
    stride *= own;
  }
  for (int64_t index = 0; index < count; index++) {
    int64_t rest = index, offset = 0;
    for (int i = rank - 1; i >= 0; i--) {
      offset += rest % batch[i] * strides[i];
      rest /= batch[i];
    }
    offsets[index] = offset;
  }
}

// C of Gemm, or a bias, as what the epilogue knows: one row, one column, a matrix, or a number. False: it does not fit.
bool set_addend(epk_context *ctx, const DLTensor &c, float beta, EpkGemm &g) {
  const auto *data = static_cast<const float *>(c.data);
  const int64_t size = epk_size(&c);
  const int64_t last = c.ndim > 0 ? c.shape[c.ndim - 1] : 1, before = c.ndim > 1 ? c.shape[c.ndim - 2] : 1;
  if ((last != g.n && last != 1) || (before != g.m && before != 1)) return false;
  const bool scaled = beta != 1.0f || size == 1;  // a number is spread over a row
  if (scaled) {
    const int64_t count = size == 1 ? g.n : size;
    auto *copy = static_cast<float *>(ctx->scratch(ctx, size_t(count) * 4));
    if (!copy) return false;
    for (int64_t i = 0; i < count; i++) copy[i] = beta * data[size == 1 ? 0 : i];
    data = copy;
    if (size == 1) {
      g.epilogue.bias = data;
      return true;
    }
  }
  if (last == g.n && size == g.n) g.epilogue.bias = data;
  else if (last == 1 && size == g.m) g.epilogue.row_bias = data;
  else g.epilogue.add = data, g.epilogue.add_row = before == 1 ? 0 : g.n;
  return true;
}

}  // namespace

// Inputs: A, B (or packed), C or bias (may be absent), residual of the output's shape (may be absent).
EPK_OPERATOR(gemm) {
  const auto &how = *static_cast<const GemmAttributes *>(attributes);
  if (in[0].ndim < 1 || (!how.packed && in[1].ndim < 1)) return epk_fail(ctx, EPK_INVALID, "a scalar has no product");
  Side a(in[0], how.transpose_a, true);
  int64_t packed_shape[2] = {how.k, how.n};
  DLTensor b_tensor = in[1];
  if (how.packed) b_tensor.ndim = 2, b_tensor.shape = packed_shape;
  Side b(b_tensor, how.transpose_b && !how.packed, false);
  if (a.columns != b.rows) {
    return epk_fail(ctx, EPK_INVALID, "the inner dimensions differ: %s x %s", ShapeText(in[0]).text, ShapeText(b_tensor).text);
  }
  EpkGemm g{};
  g.m = a.rows, g.n = b.columns, g.k = a.columns;
  int64_t shape[MAX_RANK];
  int rank = broadcast(a.batch, a.batch_rank, b.batch, b.batch_rank, shape);
  if (rank < 0) {
    return epk_fail(ctx, EPK_INVALID, "the batches of %s and %s do not broadcast", ShapeText(in[0]).text, ShapeText(in[1]).text);
  }
  const int64_t batch = product(shape, rank);
  const bool one_matrix = b.batch_rank == 0 || product(b.batch, b.batch_rank) == 1;
  const int batch_rank = rank;
  if (rank + 2 > MAX_RANK) return EPK_UNSUPPORTED;
  if (!a.vector) shape[rank++] = g.m;
  if (!b.vector) shape[rank++] = g.n;
  auto *out_data = static_cast<float *>(ctx->output(ctx, 0, rank, shape));
  if (!out_data) return EPK_FAILED;
  if (epk_size(&out[0]) == 0) return EPK_OK;
  g.a = a.data, g.a_row = a.row, g.a_column = a.column;
  if (how.packed) g.packed = static_cast<const float *>(in[1].data);
  else g.b = b.data;
  g.b_row = b.row, g.b_column = b.column;
  g.out = out_data, g.out_row = g.n;
  g.batch = batch;
  g.epilogue.scale = how.alpha;
  g.epilogue.activation = how.activation;
  g.epilogue.alpha = how.x, g.epilogue.beta = how.y;
  const bool merged = batch > 1 && one_matrix && !how.transpose_a && epk_size(&in[0]) == batch * g.m * g.k;
  if (merged) g.m *= batch, g.batch = 1;  // one large product
  if (g.batch > 1) {
    auto *offsets = static_cast<int64_t *>(ctx->scratch(ctx, size_t(g.batch) * 24));
    if (!offsets) return EPK_FAILED;
    batch_offsets(out[0].shape, batch_rank, a, g.batch, offsets);
    batch_offsets(out[0].shape, batch_rank, b, g.batch, offsets + g.batch);
    for (int64_t i = 0; i < g.batch; i++) offsets[2 * g.batch + i] = i * g.m * g.n;
    g.a_offset = offsets, g.b_offset = offsets + g.batch, g.out_offset = offsets + 2 * g.batch;
  }
  if (n_in > 2 && !absent(in[2]) && how.beta != 0.0f && !set_addend(ctx, in[2], how.beta, g)) {
    return epk_fail(ctx, EPK_INVALID, "the input C %s does not broadcast to the product %s", ShapeText(in[2]).text,
                     ShapeText(out[0]).text);
  }
  if (n_in > 3 && !absent(in[3])) {
    if (epk_size(&in[3]) != epk_size(&out[0])) return epk_fail(ctx, EPK_INVALID, "the shapes %s and %s differ", ShapeText(in[3]).text, ShapeText(out[0]).text);
    g.epilogue.add = static_cast<const float *>(in[3].data), g.epilogue.add_row = g.n;
  }
  Threads threads(ctx);
  if (how.packed == PACKED_16) {  // one matrix, so the batch is merged
    EpkGemm16 narrow{g.m, g.n, g.k, g.a, g.a_row, 16, g.packed, g.out, g.out_row, 16, g.epilogue};
    void *scratch = ctx->scratch(ctx, size_t(EPK(gemm16_scratch)(&narrow, ctx->threads)));
    if (!scratch) return EPK_FAILED;
    EPK(gemm16)(&narrow, scratch, &threads);
    return EPK_OK;
  }
  void *scratch = ctx->scratch(ctx, size_t(EPK(gemm_scratch_f32)(&g, ctx->threads)));
  if (!scratch) return EPK_FAILED;
  EPK(gemm_f32)(&g, scratch, &threads);
  return EPK_OK;
}

struct PackAttributes {
  int64_t transpose, form;  // EpkForm16, or -1 for float32
};

// A constant B, [k, n] or transposed, as the product wants it: bytes.
EPK_OPERATOR(gemm_pack) {
  const auto &how = *static_cast<const PackAttributes *>(attributes);
  if (in[0].ndim != 2) return EPK_INVALID;
  int64_t k = in[0].shape[how.transpose ? 1 : 0], n = in[0].shape[how.transpose ? 0 : 1];
  const int64_t size = (how.form < 0 ? EPK(gemm_packed_size_f32) : EPK(gemm16_packed_size))(k, n);
  void *packed = ctx->output(ctx, 0, 1, &size);
  if (!packed) return EPK_FAILED;
  const auto *b = static_cast<const float *>(in[0].data);
  const int64_t row = how.transpose ? 1 : n, column = how.transpose ? k : 1;
  Threads threads(ctx);
  if (how.form >= 0) EPK(gemm16_pack)(b, k, n, row, column, int(how.form), packed, &threads);
  else EPK(gemm_pack_f32)(b, k, n, row, column, static_cast<float *>(packed), &threads);
  return EPK_OK;
}

}  // namespace EPK_NS

extern "C" int64_t EPK(peak_f32)(int64_t rounds, float *sink);

namespace EPK_NS {

// Attributes: rounds. Output: the floating-point operations done, on one thread and in registers; for benchmarks.
EPK_OPERATOR(peak) {
  const int64_t one = 1;
  auto *y = static_cast<int64_t *>(ctx->output(ctx, 0, 1, &one));
  if (!y) return EPK_FAILED;
  float sink[2] = {0.999f, 0.001f};
  *y = EPK(peak_f32)(*static_cast<const int64_t *>(attributes), sink);
  return EPK_OK;
}

}  // namespace EPK_NS
