// Products with weights of 4 or 8 bits in blocks (MatMulNBits).
#include "../kernels/nbits.h"

#include "ops.h"

namespace EPK_NS {
namespace {

struct NBitsAttributes {
  int64_t k, n, bits, block;
};

bool has_bytes(const DLTensor &t, int64_t count) { return t.dtype.bits == 8 && epk_size(&t) == count; }

}  // namespace

// Inputs: A [..., k], B, scales, zero points (may be absent), bias [n] (may be absent); see kernels/nbits.h.
EPK_OPERATOR(matmul_nbits) {
  const auto &how = *static_cast<const NBitsAttributes *>(attributes);
  const DLTensor &a = in[0];
  if (a.ndim < 1 || a.shape[a.ndim - 1] != how.k) return epk_fail(ctx, EPK_INVALID, "A %s does not have K=%lld columns", ShapeText(a).text, (long long)how.k);
  const int64_t blocks = ceil_div(how.k, how.block);
  const bool zeros = n_in > 3 && !absent(in[3]), bias = n_in > 4 && !absent(in[4]);
  if (!has_bytes(in[1], how.n * blocks * how.block * how.bits / 8) || epk_size(&in[2]) != how.n * blocks ||
      (zeros && !has_bytes(in[3], how.n * ceil_div(blocks * how.bits, 8))) || (bias && epk_size(&in[4]) != how.n)) {
    return epk_fail(ctx, EPK_INVALID, "input B %s and scales %s do not fit N=%lld and K=%lld", ShapeText(in[1]).text, ShapeText(in[2]).text, (long long)how.n, (long long)how.k);
  }
  int64_t shape[MAX_RANK];
  for (int i = 0; i + 1 < a.ndim; i++) shape[i] = a.shape[i];
  shape[a.ndim - 1] = how.n;
  EpkNBits g{};
  g.m = product(a.shape, a.ndim - 1), g.n = how.n, g.k = how.k, g.bits = how.bits, g.block = how.block;
  g.a = static_cast<const float *>(a.data), g.b = static_cast<const uint8_t *>(in[1].data);
  g.scales = static_cast<const float *>(in[2].data);
  g.zeros = zeros ? static_cast<const uint8_t *>(in[3].data) : nullptr;
  g.epilogue.scale = 1;
  g.epilogue.bias = bias ? static_cast<const float *>(in[4].data) : nullptr;
  g.out = static_cast<float *>(ctx->output(ctx, 0, a.ndim, shape));
  if (!g.out) return EPK_FAILED;
  if (epk_size(&out[0]) == 0) return EPK_OK;
  void *scratch = ctx->scratch(ctx, size_t(EPK(nbits_scratch)(&g, ctx->threads)));
  if (!scratch) return EPK_FAILED;
  Threads threads(ctx);
  EPK(nbits)(&g, scratch, &threads);
  return EPK_OK;
}

}  // namespace EPK_NS
