// Results whose size or place depends on values: NonZero, Compress, OneHot, ReverseSequence.
#include "copy.h"

namespace EPK_NS {
namespace {

// Whether elements differ from zero: bytes other than the sign of a float.
struct NonZero {
  int64_t width;
  uint64_t mask;
  explicit NonZero(DLDataType type) : width(type.bits / 8), mask(type.bits == 64 ? ~uint64_t(0) : (uint64_t(1) << type.bits) - 1) {
    if (type.code == kDLFloat || type.code == kDLBfloat) mask >>= 1;
  }
  bool operator()(const char *data, int64_t i) const {
    uint64_t bits = 0;
    memcpy(&bits, data + i * width, size_t(width));
    return (bits & mask) != 0;
  }
};

int64_t count_of(const NonZero &test, const char *data, int64_t n) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; i++) count += test(data, i);
  return count;
}

// An integer of any of these types; floats are truncated.
bool whole_at(const DLTensor &t, int64_t i, int64_t &value) {
  if (is_type(t, kDLInt, 64)) value = static_cast<const int64_t *>(t.data)[i];
  else if (is_type(t, kDLInt, 32)) value = static_cast<const int32_t *>(t.data)[i];
  else if (is_type(t, kDLUInt, 8)) value = static_cast<const uint8_t *>(t.data)[i];
  else if (is_f32(t)) {
    const float x = static_cast<const float *>(t.data)[i];
    if (!(x > -9e18f && x < 9e18f)) return false;
    value = int64_t(x);
  } else return false;
  return true;
}

}  // namespace

EPK_OPERATOR(non_zero) {
  const DLTensor &x = in[0];
  const NonZero test(x.dtype);
  const auto *data = static_cast<const char *>(x.data);
  const int64_t n = epk_size(&x), count = count_of(test, data, n), dims[2] = {x.ndim, count};
  auto *y = static_cast<int64_t *>(ctx->output(ctx, 0, 2, dims));
  if (!y) return EPK_FAILED;
  int64_t at[MAX_RANK] = {}, found = 0;
  for (int64_t i = 0; i < n && x.ndim > 0; i++) {
    if (test(data, i)) {
      for (int d = 0; d < x.ndim; d++) y[d * count + found] = at[d];
      found++;
    }
    for (int d = x.ndim - 1; d >= 0 && ++at[d] == x.shape[d]; d--) at[d] = 0;
  }
  return EPK_OK;
}

// Attributes: axis, whether there is one. Inputs: x, condition.
EPK_OPERATOR(compress) {
  const auto *how = static_cast<const int64_t *>(attributes);
  const DLTensor &x = in[0], &condition = in[1];
  int axis = 0, rank = 1;
  int64_t dims[MAX_RANK], outer = 1, size = epk_size(&x), inner = 1;
  if (how[1]) {
    axis = normal_axis(how[0], x.ndim), rank = x.ndim;
    if (axis < 0) return EPK_UNSUPPORTED;
    for (int i = 0; i < rank; i++) dims[i] = x.shape[i];
    outer = product(dims, axis), size = dims[axis], inner = product(dims + axis + 1, rank - axis - 1);
  }
  if (condition.ndim != 1) return EPK_UNSUPPORTED;
  const auto *wanted = static_cast<const uint8_t *>(condition.data);
  int64_t count = 0;
  for (int64_t i = 0; i < condition.shape[0]; i++) {
    if (wanted[i] && i >= size) return EPK_UNSUPPORTED;  // an error that the portable kernel explains
    count += wanted[i] != 0;
  }
  dims[axis] = count;
  auto *y = static_cast<char *>(ctx->output(ctx, 0, rank, dims));
  if (!y) return EPK_FAILED;
  const auto *from = static_cast<const char *>(x.data);
  const int64_t bytes = inner * width_of(x), most = min_of(size, condition.shape[0]);
  for (int64_t o = 0; o < outer && bytes > 0; o++)
    for (int64_t i = 0; i < most; i++) {
      if (!wanted[i]) continue;
      memcpy(y, from + (o * size + i) * bytes, size_t(bytes));
      y += bytes;
    }
  return EPK_OK;
}

// Attributes: axis, whether negative indices count from the end. Inputs: indices, depth, [off, on].
EPK_OPERATOR(one_hot) {
  const auto *how = static_cast<const int64_t *>(attributes);
  const DLTensor &indices = in[0], &values = in[2];
  int64_t depth, dims[MAX_RANK + 1];
  const int rank = indices.ndim + 1, axis = normal_axis(how[0], rank);
  if (axis < 0 || rank > MAX_RANK || epk_size(&in[1]) != 1 || !whole_at(in[1], 0, depth) || depth < 0 || values.ndim != 1 || values.shape[0] != 2) return EPK_UNSUPPORTED;
  for (int i = 0; i < rank; i++) dims[i] = i < axis ? indices.shape[i] : i == axis ? depth : indices.shape[i - 1];
  auto *y = static_cast<char *>(ctx->output(ctx, 0, rank, dims));
  if (!y) return EPK_FAILED;
  const int64_t width = width_of(values), size = epk_size(&out[0]);
  const int64_t n = epk_size(&indices), inner = product(indices.shape + axis, indices.ndim - axis);
  const auto *off = static_cast<const char *>(values.data);
  if (size == 0) return EPK_OK;
  fill_with(ctx, y, size, off, width);
  for (int64_t i = 0; i < n; i++) {
    int64_t index;
    if (!whole_at(indices, i, index)) return EPK_UNSUPPORTED;
    if (index < 0 && how[1]) index += depth;
    if (index < 0 || index >= depth) continue;
    memcpy(y + ((i / inner * depth + index) * inner + i % inner) * width, off + width, size_t(width));
  }
  return EPK_OK;
}

// Attributes: whether time comes first. Inputs: x, lengths.
EPK_OPERATOR(reverse_sequence) {
  const bool time_first = *static_cast<const int64_t *>(attributes) != 0;
  const DLTensor &x = in[0], &lengths = in[1];
  if (x.ndim < 2 || lengths.ndim != 1) return EPK_UNSUPPORTED;
  const int64_t steps = x.shape[time_first ? 0 : 1], batch = x.shape[time_first ? 1 : 0];
  if (lengths.shape[0] != batch) return EPK_UNSUPPORTED;
  const auto *length = static_cast<const int64_t *>(lengths.data);
  for (int64_t b = 0; b < batch; b++)
    if (length[b] < 0 || length[b] > steps) return EPK_UNSUPPORTED;
  auto *y = static_cast<char *>(ctx->output(ctx, 0, x.ndim, x.shape));
  if (!y) return EPK_FAILED;
  const auto *from = static_cast<const char *>(x.data);
  const int64_t bytes = product(x.shape + 2, x.ndim - 2) * width_of(x);
  const int64_t by_step = time_first ? batch : 1, by_item = time_first ? 1 : steps;
  for (int64_t i = 0; i < batch * steps && bytes > 0; i++) {
    const int64_t b = i / steps, t = i % steps, source = t < length[b] ? length[b] - 1 - t : t;
    memcpy(y + (b * by_item + t * by_step) * bytes, from + (b * by_item + source * by_step) * bytes, size_t(bytes));
  }
  return EPK_OK;
}

}  // namespace EPK_NS
