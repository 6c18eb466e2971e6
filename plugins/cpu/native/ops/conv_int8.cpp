// Convolutions of 8-bit integers.
#include "finish.h"
#include "window.h"

namespace EPK_NS {

// Inputs: weights as ONNX has them, their zero points (may be absent). Output: bytes.
EPK_OPERATOR(conv_int8_pack) {
  EpkConvInt8 c{};
  set_geometry(*static_cast<const ConvAttributes *>(attributes), c.shape);
  const int64_t size = EPK(conv_packed_size_int8)(&c);
  void *packed = ctx->output(ctx, 0, 1, &size);
  if (!packed) return EPK_FAILED;
  const DLTensor *zero = given(in, n_in, 1);
  Threads threads(ctx);
  EPK(conv_pack_int8)(&c, in[0].data, in[0].dtype.code == kDLInt, zero ? zero->data : nullptr, zero ? epk_size(zero) : 0, packed, &threads);
  return EPK_OK;
}

// Inputs: see finish.h; W is packed. Attributes: ConvAttributes, whose activation is none or Relu.
EPK_OPERATOR(conv_int8) {
  const auto &how = *static_cast<const ConvAttributes *>(attributes);
  const DLTensor &x = in[IN_X];
  if (!is_byte(x)) return EPK_INVALID;
  EpkConvInt8 c{};
  set_geometry(how, c.shape);
  if (int status = set_image(ctx, how, x, c.shape)) return status;
  c.x_signed = x.dtype.code == kDLInt;
  if (int status = zero_of(ctx, given(in, n_in, IN_X_ZERO), &c.x_zero)) return status;
  if (int status = set_finish(ctx, in, n_in, out[0].dtype, how.filters, how.activation == EPK_RELU, c.finish)) return status;
  int64_t shape[MAX_RANK];
  const int rank = result_shape(how.window, c.shape.n, how.filters, c.shape.out, how.out_blocked, shape);
  void *y = ctx->output(ctx, 0, rank, shape);
  if (!y) return EPK_FAILED;
  if (epk_size(&out[0]) == 0) return EPK_OK;
  drop_trailing(c.shape);
  const int64_t needed = EPK(conv_scratch_int8)(&c, ctx->threads);
  if (needed < 0) return epk_fail(ctx, EPK_OUT_OF_MEMORY, "the padding makes an image larger than any memory of X %s", ShapeText(x).text);
  void *scratch = ctx->scratch(ctx, size_t(needed));
  if (!scratch) return EPK_FAILED;
  Threads threads(ctx);
  EPK(conv_int8)(&c, x.data, in[IN_W].data, y, scratch, &threads);
  return EPK_OK;
}

}  // namespace EPK_NS
