// Quantisation and products of 8-bit integers.
#include "../kernels/int8.h"
#include "ops.h"

namespace EPK_NS {
namespace {

bool is_byte(const DLTensor &t) { return t.dtype.bits == 8 && t.dtype.code <= kDLUInt; }

// Outer, axis and inner sizes for one scale, or for one per index of an axis; false: it does not fit.
bool spread(const DLTensor &x, const DLTensor &scale, int64_t wanted, int64_t *outer, int64_t *size, int64_t *inner) {
  *outer = epk_size(&x), *size = 1, *inner = 1;
  if (epk_size(&scale) == 1 && scale.ndim <= 1) {
    const int64_t all = *outer;
    *outer = 1, *inner = all;
    return true;
  }
  const int axis = normal_axis(wanted, x.ndim);
  if (axis < 0 || scale.ndim != 1 || scale.shape[0] != x.shape[axis]) return false;
  *outer = product(x.shape, axis), *size = x.shape[axis], *inner = product(x.shape + axis + 1, x.ndim - axis - 1);
  return true;
}

}  // namespace

// Attributes: axis. Inputs: x, scale, zero point (may be absent).
EPK_OPERATOR(quantise_linear) {
  int64_t outer, size, inner;
  const DLTensor &x = in[0];
  if (!spread(x, in[1], *static_cast<const int64_t *>(attributes), &outer, &size, &inner) ||
      (n_in > 2 && !absent(in[2]) && epk_size(&in[2]) != epk_size(&in[1]))) {
    return epk_fail(ctx, EPK_UNSUPPORTED, "scale %s for x %s", ShapeText(in[1]).text, ShapeText(x).text);
  }
  void *y = ctx->output(ctx, 0, x.ndim, x.shape);
  if (!y) return EPK_FAILED;
  if (epk_size(&x) == 0) return EPK_OK;
  Threads threads(ctx);
  EPK(quantise)((const float *)x.data, (const float *)in[1].data, n_in > 2 && !absent(in[2]) ? in[2].data : nullptr, y,
                out[0].dtype.code == kDLInt, outer, size, inner, &threads);
  return EPK_OK;
}

// As above.
EPK_OPERATOR(dequantise_linear) {
  int64_t outer, size, inner;
  const DLTensor &x = in[0];
  if (!spread(x, in[1], *static_cast<const int64_t *>(attributes), &outer, &size, &inner) ||
      (n_in > 2 && !absent(in[2]) && epk_size(&in[2]) != epk_size(&in[1]))) {
    return epk_fail(ctx, EPK_UNSUPPORTED, "scale %s for x %s", ShapeText(in[1]).text, ShapeText(x).text);
  }
  auto *y = static_cast<float *>(ctx->output(ctx, 0, x.ndim, x.shape));
  if (!y) return EPK_FAILED;
  if (epk_size(&x) == 0) return EPK_OK;
  Threads threads(ctx);
  EPK(dequantise)(x.data, (const float *)in[1].data, n_in > 2 && !absent(in[2]) ? in[2].data : nullptr, y,
                  x.dtype.code == kDLInt, outer, size, inner, &threads);
  return EPK_OK;
}

// Inputs: B [k, n], its zero point (may be absent). Output: bytes.
EPK_OPERATOR(gemm_int8_pack) {
  const DLTensor &b = in[0];
  if (b.ndim != 2 || !is_byte(b)) return EPK_INVALID;
  const int64_t k = b.shape[0], n = b.shape[1], size = EPK(gemm_packed_size_int8)(k, n);
  void *packed = ctx->output(ctx, 0, 1, &size);
  if (!packed) return EPK_FAILED;
  const bool zero = n_in > 1 && !absent(in[1]);
  Threads threads(ctx);
  EPK(gemm_pack_int8)(b.data, k, n, n, 1, b.dtype.code == kDLInt, zero ? in[1].data : nullptr, zero ? epk_size(&in[1]) : 0, packed, &threads);
  return EPK_OK;
}

// Attributes: k, n. Inputs: A, packed B, zero point of A (one, or absent). The sums, in int32.
EPK_OPERATOR(matmul_integer) {
  const auto *how = static_cast<const int64_t *>(attributes);
  const DLTensor &a = in[0];
  if (a.ndim < 2 || !is_byte(a) || a.shape[a.ndim - 1] != how[0]) return epk_fail(ctx, EPK_INVALID, "A %s does not have %lld columns", ShapeText(a).text, (long long)how[0]);
  int64_t shape[MAX_RANK];
  for (int i = 0; i + 1 < a.ndim; i++) shape[i] = a.shape[i];
  shape[a.ndim - 1] = how[1];
  EpkGemmInt8 g{};
  g.m = product(a.shape, a.ndim - 1), g.k = how[0], g.n = how[1];
  g.a = a.data, g.a_row = g.k, g.a_signed = a.dtype.code == kDLInt;
  if (n_in > 2 && !absent(in[2])) {
    if (epk_size(&in[2]) != 1) return epk_fail(ctx, EPK_UNSUPPORTED, "a zero point for each row");
    g.a_zero = g.a_signed ? *(const int8_t *)in[2].data : *(const uint8_t *)in[2].data;
  }
  g.packed = in[1].data;
  g.batch = 1;
  g.finish.result = EPK_INT32;
  g.out = ctx->output(ctx, 0, a.ndim, shape);
  g.out_row = g.n;
  if (!g.out) return EPK_FAILED;
  if (epk_size(&out[0]) == 0) return EPK_OK;
  void *scratch = ctx->scratch(ctx, size_t(EPK(gemm_scratch_int8)(&g, ctx->threads)));
  if (!scratch) return EPK_FAILED;
  Threads threads(ctx);
  EPK(gemm_int8)(&g, scratch, &threads);
  return EPK_OK;
}

}  // namespace EPK_NS
