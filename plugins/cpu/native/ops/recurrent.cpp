// LSTM, GRU and RNN: the whole sequence in one step.
#include "../kernels/recurrent.h"

#include "ops.h"

namespace EPK_NS {
namespace {

struct RecurrentAttributes {
  int64_t cell, directions, reverse, reset_first, relu, inputs, hidden;
  float clip;
  int32_t unused;
};

const float *floats(const DLTensor *in, int n_in, int index) {
  return index < n_in && !absent(in[index]) ? static_cast<const float *>(in[index].data) : nullptr;
}

}  // namespace

// Inputs: W, R. Output: bytes.
EPK_OPERATOR(recurrent_pack) {
  const auto &how = *static_cast<const RecurrentAttributes *>(attributes);
  int64_t size = EPK(recurrent_packed_size_f32)(int(how.cell), how.directions, how.inputs, how.hidden);
  auto *packed = static_cast<float *>(ctx->output(ctx, 0, 1, &size));
  if (!packed) return EPK_FAILED;
  Threads threads(ctx);
  EPK(recurrent_pack_f32)(int(how.cell), how.directions, how.inputs, how.hidden, (const float *)in[0].data, (const float *)in[1].data, packed, &threads);
  return EPK_OK;
}

// Inputs: X, packed weights, bias, lengths, initial state, initial cell, peepholes. Outputs: Y, last state, last cell.
EPK_OPERATOR(recurrent) {
  const auto &how = *static_cast<const RecurrentAttributes *>(attributes);
  const DLTensor &x = in[0];
  if (x.ndim != 3 || x.shape[2] != how.inputs) return epk_fail(ctx, EPK_INVALID, "the input X %s is not [steps, batch, %lld]", ShapeText(x).text, (long long)how.inputs);
  EpkRecurrent c{};
  c.cell = int32_t(how.cell), c.reverse = int32_t(how.reverse), c.directions = int32_t(how.directions);
  c.reset_first = int32_t(how.reset_first), c.relu = int32_t(how.relu), c.clip = how.clip;
  c.steps = x.shape[0], c.batch = x.shape[1], c.inputs = how.inputs, c.hidden = how.hidden;
  const int64_t gates = how.cell == EPK_LSTM ? 4 : how.cell == EPK_GRU ? 3 : 1;
  const int64_t wanted[] = {-1, -1, how.directions * 2 * gates * how.hidden, c.batch, how.directions * c.batch * how.hidden,
                            how.directions * c.batch * how.hidden, how.directions * 3 * how.hidden};
  for (int i = 2; i < n_in && i < 7; i++)
    if (!absent(in[i]) && epk_size(&in[i]) != wanted[i]) return epk_fail(ctx, EPK_INVALID, "input %d of shape %s does not fit X %s", i, ShapeText(in[i]).text, ShapeText(x).text);
  c.x = static_cast<const float *>(x.data), c.packed = static_cast<const float *>(in[1].data);
  c.bias = floats(in, n_in, 2);
  if (n_in > 3 && !absent(in[3])) {
    c.lengths = static_cast<const int32_t *>(in[3].data);
    for (int64_t i = 0; i < c.batch; i++)
      if (c.lengths[i] < 0 || c.lengths[i] > c.steps) return epk_fail(ctx, EPK_INVALID, "a sequence of %d steps in X %s", c.lengths[i], ShapeText(x).text);
  }
  c.initial = floats(in, n_in, 4), c.initial_cell = floats(in, n_in, 5), c.peephole = floats(in, n_in, 6);
  const int64_t all[4] = {c.steps, how.directions, c.batch, how.hidden};
  if (out[0].ndim >= 0 && !(c.out = (float *)ctx->output(ctx, 0, 4, all))) return EPK_FAILED;
  if (n_out > 1 && out[1].ndim >= 0 && !(c.last = (float *)ctx->output(ctx, 1, 3, all + 1))) return EPK_FAILED;
  if (n_out > 2 && out[2].ndim >= 0 && !(c.last_cell = (float *)ctx->output(ctx, 2, 3, all + 1))) return EPK_FAILED;
  if (c.steps == 0 || c.batch == 0) return epk_fail(ctx, EPK_UNSUPPORTED, "an empty sequence");
  void *scratch = ctx->scratch(ctx, size_t(EPK(recurrent_scratch_f32)(&c, ctx->threads)));
  if (!scratch) return EPK_FAILED;
  Threads threads(ctx);
  EPK(recurrent_f32)(&c, scratch, &threads);
  return EPK_OK;
}

}  // namespace EPK_NS
