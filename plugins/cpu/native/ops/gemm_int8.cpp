// Matrix products of 8-bit integers.
#include "finish.h"

namespace EPK_NS {
namespace {

struct GemmInt8Attributes {
  int64_t k, n;         // of a packed B
  int32_t packed;       // the second input is what gemm_int8_pack made
  int32_t transpose_b;  // of the last two axes, where B is not packed
  int32_t relu, unused;
};

// Elements to a matrix of an operand whose batch broadcasts to `batch`.
int64_t matrix_at(const DLTensor &t, const int64_t *batch, int rank, int64_t index, int64_t size) {
  int64_t offset = 0, stride = size;
  for (int i = rank - 1, j = t.ndim - 3; i >= 0 && j >= 0; i--, j--) {
    if (t.shape[j] != 1) offset += index % batch[i] * stride;
    stride *= t.shape[j];
    index /= batch[i];
  }
  return offset;
}

// A by a B that is not constant: packed here, once for each product, or once for all.
int with_unpacked(epk_context *ctx, const GemmInt8Attributes &how, const DLTensor &a, const DLTensor &b,
                  const DLTensor *zero, EpkGemmInt8 g, const int64_t *batch, int rank) {
  const int64_t products = product(batch, rank), b_size = g.k * g.n;
  const bool one = epk_size(&b) == b_size;
  const bool merged = one && epk_size(&a) == products * g.m * g.k;
  const int64_t rows = g.m, count = merged ? 1 : products;
  if (merged) g.m *= products;
  void *packed = ctx->scratch(ctx, size_t(EPK(gemm_packed_size_int8)(g.k, g.n)));
  g.packed = packed;
  void *scratch = ctx->scratch(ctx, size_t(EPK(gemm_scratch_int8)(&g, ctx->threads)));
  if (!packed || !scratch) return EPK_FAILED;
  Threads threads(ctx);
  const int64_t width = g.finish.result == EPK_INT32 || g.finish.result == EPK_FLOAT32 ? 4 : 1;
  auto *out = static_cast<char *>(g.out);
  for (int64_t i = 0; i < count; i++) {
    const auto *from = static_cast<const uint8_t *>(b.data) + matrix_at(b, batch, rank, i, b_size);
    if (i == 0 || !one) {
      EPK(gemm_pack_int8)(from, g.k, g.n, how.transpose_b ? 1 : g.n, how.transpose_b ? g.k : 1, b.dtype.code == kDLInt,
                          zero ? zero->data : nullptr, zero ? 1 : 0, packed, &threads);
    }
    g.a = static_cast<const uint8_t *>(a.data) + matrix_at(a, batch, rank, i, rows * g.k);
    g.out = out + i * rows * g.n * width;
    EPK(gemm_int8)(&g, scratch, &threads);
  }
  return EPK_OK;
}

// A of float32 as codes, in scratch memory: in the place of A, its scale and its zero point.
int quantise_a(epk_context *ctx, DLTensor *in) {
  struct Room {
    float scale;
    uint8_t zero;
  };
  const auto *from = static_cast<const float *>(in[IN_X].data);
  const int64_t size = epk_size(&in[IN_X]);
  auto *room = static_cast<Room *>(ctx->scratch(ctx, sizeof(Room)));
  void *codes = ctx->scratch(ctx, size_t(size));
  if (!room || !codes) return EPK_FAILED;
  if (int status = dynamic_scale(ctx, from, size, &room->scale, &room->zero)) return status;
  Threads threads(ctx);
  if (size > 0) EPK(quantise)(from, &room->scale, &room->zero, codes, 0, 1, 1, size, &threads);
  in[IN_X_SCALE] = in[IN_X_ZERO] = in[IN_X];
  in[IN_X].data = codes, in[IN_X].dtype = DLDataType{kDLUInt, 8, 1};
  in[IN_X_SCALE].data = &room->scale, in[IN_X_SCALE].ndim = 0;
  in[IN_X_ZERO].data = &room->zero, in[IN_X_ZERO].ndim = 0, in[IN_X_ZERO].dtype = in[IN_X].dtype;
  return EPK_OK;
}

}  // namespace

// Attributes: transposed. Inputs: B [k, n] or [n, k], its zero points (may be absent). Output: bytes.
EPK_OPERATOR(gemm_int8_pack) {
  const DLTensor &b = in[0];
  if (b.ndim != 2 || !is_byte(b)) return EPK_INVALID;
  const bool transposed = *static_cast<const int64_t *>(attributes) != 0;
  const int64_t k = b.shape[transposed], n = b.shape[!transposed], size = EPK(gemm_packed_size_int8)(k, n);
  void *packed = ctx->output(ctx, 0, 1, &size);
  if (!packed) return EPK_FAILED;
  const DLTensor *zero = given(in, n_in, 1);
  Threads threads(ctx);
  EPK(gemm_pack_int8)(b.data, k, n, transposed ? 1 : n, transposed ? k : 1, b.dtype.code == kDLInt,
                      zero ? zero->data : nullptr, zero ? epk_size(zero) : 0, packed, &threads);
  return EPK_OK;
}

// Inputs: see finish.h. A has one zero point; so has a B that is not packed. A of float32 is quantised here.
EPK_OPERATOR(gemm_int8) {
  DLTensor operands[IN_OFFSET + 1];
  if (n_in > IN_X_ZERO && is_f32(in[IN_X])) {
    memcpy(operands, in, sizeof(DLTensor) * size_t(n_in));
    if (int status = quantise_a(ctx, operands)) return status;
    in = operands;
  }
  const auto &how = *static_cast<const GemmInt8Attributes *>(attributes);
  const DLTensor &a = in[IN_X];
  DLTensor b = in[IN_W];
  int64_t packed_shape[2] = {how.k, how.n};
  if (how.packed) b.ndim = 2, b.shape = packed_shape;
  if (a.ndim < 2 || b.ndim < 2 || !is_byte(a)) return epk_fail(ctx, EPK_UNSUPPORTED, "a vector: %s or %s", ShapeText(a).text, ShapeText(b).text);
  const bool transposed = how.transpose_b && !how.packed;
  EpkGemmInt8 g{};
  g.m = a.shape[a.ndim - 2], g.k = a.shape[a.ndim - 1], g.n = b.shape[b.ndim - (transposed ? 2 : 1)];
  if (g.k != b.shape[b.ndim - (transposed ? 1 : 2)]) return epk_fail(ctx, EPK_INVALID, "the inner sizes differ: %s x %s", ShapeText(a).text, ShapeText(b).text);
  int64_t shape[MAX_RANK];
  const int rank = broadcast(a.shape, a.ndim - 2, b.shape, b.ndim - 2, shape);
  if (rank < 0 || rank + 2 > MAX_RANK) return epk_fail(ctx, EPK_INVALID, "the batches of %s and %s do not broadcast", ShapeText(a).text, ShapeText(b).text);
  shape[rank] = g.m, shape[rank + 1] = g.n;
  g.a_row = g.k, g.a_signed = a.dtype.code == kDLInt, g.out_row = g.n, g.batch = 1;
  if (int status = zero_of(ctx, given(in, n_in, IN_X_ZERO), &g.a_zero)) return status;
  if (int status = set_finish(ctx, in, n_in, out[0].dtype, g.n, how.relu, g.finish)) return status;
  g.out = ctx->output(ctx, 0, rank + 2, shape);
  if (!g.out) return EPK_FAILED;
  if (epk_size(&out[0]) == 0) return EPK_OK;
  if (!how.packed) {
    const DLTensor *zero = given(in, n_in, IN_W_ZERO);
    if (!is_byte(b) || (zero && epk_size(zero) != 1)) return epk_fail(ctx, EPK_UNSUPPORTED, "a zero point for each column");
    return with_unpacked(ctx, how, a, b, zero, g, out[0].shape, rank);
  }
  g.m = product(a.shape, a.ndim - 1), g.a = a.data, g.packed = b.data;
  void *scratch = ctx->scratch(ctx, size_t(EPK(gemm_scratch_int8)(&g, ctx->threads)));
  if (!scratch) return EPK_FAILED;
  Threads threads(ctx);
  EPK(gemm_int8)(&g, scratch, &threads);
  return EPK_OK;
}

}  // namespace EPK_NS
