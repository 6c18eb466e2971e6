// Operators that read or write at positions given by a tensor: Gather and Scatter in their forms.
#include "copy.h"

namespace EPK_NS {
namespace {

inline int64_t index_at(const DLTensor &t, int64_t i) {
  return t.dtype.bits == 64 ? static_cast<const int64_t *>(t.data)[i] : static_cast<const int32_t *>(t.data)[i];
}

bool is_index(const DLTensor &t) { return t.dtype.code == kDLInt && (t.dtype.bits == 32 || t.dtype.bits == 64); }

// All indices from the front, into `wide`; false if one is out of range.
bool resolve(const DLTensor &indices, int64_t size, int64_t *wide) {
  const int64_t n = epk_size(&indices);
  for (int64_t i = 0; i < n; i++) {
    int64_t index = index_at(indices, i);
    if (index < 0) index += size;
    if (index < 0 || index >= size) return false;
    wide[i] = index;
  }
  return true;
}

int out_of_range(epk_context *ctx, int64_t size) {
  return epk_fail(ctx, EPK_INVALID, "an index is out of range for an axis of size %lld", (long long)size);
}

// Tuples along the last axis of the indices as positions in the leading dimensions of the data; false: out of range.
bool flat_positions(const DLTensor &indices, const int64_t *dims, int depth, int64_t count, int64_t *flat) {
  for (int64_t i = 0; i < count; i++) {
    int64_t position = 0;
    for (int d = 0; d < depth; d++) {
      int64_t index = index_at(indices, i * depth + d);
      if (index < 0) index += dims[d];
      if (index < 0 || index >= dims[d]) return false;
      position = position * dims[d] + index;
    }
    flat[i] = position;
  }
  return true;
}

// Whether `indices` has the data's rank and is nowhere larger except along the axis.
bool elements_fit(const DLTensor &data, const DLTensor &indices, int axis) {
  if (data.ndim != indices.ndim) return false;
  for (int i = 0; i < data.ndim; i++)
    if (i != axis && indices.shape[i] > data.shape[i]) return false;
  return true;
}

// The position in the data of each element of the indices along an axis; false: out of range.
bool element_positions(const DLTensor &data, const DLTensor &indices, int axis, int64_t *positions) {
  int64_t strides[MAX_RANK], at[MAX_RANK] = {};
  dense_strides(data, strides);
  const int64_t n = epk_size(&indices);
  for (int64_t i = 0; i < n; i++) {
    int64_t index = index_at(indices, i), position = 0;
    if (index < 0) index += data.shape[axis];
    if (index < 0 || index >= data.shape[axis]) return false;
    for (int d = 0; d < data.ndim; d++) position += (d == axis ? index : at[d]) * strides[d];
    positions[i] = position;
    for (int d = data.ndim - 1; d >= 0 && ++at[d] == indices.shape[d]; d--) at[d] = 0;
  }
  return true;
}

enum { SCATTER_SET, SCATTER_ADD, SCATTER_MUL, SCATTER_MAX, SCATTER_MIN };

template <class T> void reduce_into(T *to, const T *from, int64_t n, int64_t how) {
  for (int64_t i = 0; i < n; i++) {
    const T a = to[i], b = from[i];
    switch (how) {
      case SCATTER_ADD: to[i] = T(a + b); break;
      case SCATTER_MUL: to[i] = T(a * b); break;
      case SCATTER_MAX: to[i] = (a > b) | (a != a) ? a : b; break;
      default: to[i] = (a < b) | (a != a) ? a : b;
    }
  }
}

int scatter(epk_context *ctx, const DLTensor &data, const DLTensor &updates, DLTensor *out, const int64_t *positions,
            int64_t count, int64_t inner, int64_t how) {
  auto *y = static_cast<char *>(ctx->output(ctx, 0, data.ndim, data.shape));
  if (!y) return EPK_FAILED;
  const int64_t width = width_of(data);
  memcpy(y, data.data, size_t(epk_size(&data) * width));
  const auto *from = static_cast<const char *>(updates.data);
  for (int64_t i = 0; i < count; i++) {
    char *to = y + positions[i] * inner * width;
    const char *row = from + i * inner * width;
    if (how == SCATTER_SET) memcpy(to, row, size_t(inner * width));
    else if (is_type(out[0], kDLFloat, 32)) reduce_into((float *)to, (const float *)row, inner, how);
    else if (is_type(out[0], kDLFloat, 64)) reduce_into((double *)to, (const double *)row, inner, how);
    else if (is_type(out[0], kDLInt, 64)) reduce_into((uint64_t *)to, (const uint64_t *)row, inner, how);
    else return EPK_UNSUPPORTED;
  }
  return EPK_OK;
}

}  // namespace

// Attributes: axis.
EPK_OPERATOR(gather) {
  const DLTensor &data = in[0], &indices = in[1];
  const int axis = normal_axis(*static_cast<const int64_t *>(attributes), data.ndim);
  if (axis < 0 || !is_index(indices)) return epk_fail(ctx, EPK_INVALID, "the axis is out of range for %s", ShapeText(data).text);
  const int rank = data.ndim - 1 + indices.ndim;
  if (rank > MAX_RANK) return epk_fail(ctx, EPK_UNSUPPORTED, "more than %d dimensions", MAX_RANK);
  int64_t dims[MAX_RANK];
  for (int i = 0; i < axis; i++) dims[i] = data.shape[i];
  for (int i = 0; i < indices.ndim; i++) dims[axis + i] = indices.shape[i];
  for (int i = axis + 1; i < data.ndim; i++) dims[i - 1 + indices.ndim] = data.shape[i];
  const int64_t count = epk_size(&indices), size = data.shape[axis];
  const int64_t outer = product(data.shape, axis), bytes = product(data.shape + axis + 1, data.ndim - axis - 1) * width_of(data);
  auto *y = static_cast<char *>(ctx->output(ctx, 0, rank, dims));
  auto *rows = static_cast<int64_t *>(ctx->scratch(ctx, size_t(count + 1) * 8));
  if (!y || !rows) return EPK_FAILED;
  if (!resolve(indices, size, rows)) return out_of_range(ctx, size);
  if (bytes == 0) return EPK_OK;
  const auto *from = static_cast<const char *>(data.data);
  in_parallel(ctx, outer * count, grain_of(ctx, outer * count, ceil_div(65536, bytes)), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      const char *row = from + (i / count * size + rows[i % count]) * bytes;
      memcpy(y + i * bytes, row, size_t(bytes));
    }
  });
  return EPK_OK;
}

// Attributes: axis.
EPK_OPERATOR(gather_elements) {
  const DLTensor &data = in[0], &indices = in[1];
  const int axis = normal_axis(*static_cast<const int64_t *>(attributes), data.ndim);
  if (axis < 0 || !is_index(indices) || !elements_fit(data, indices, axis)) {
    return epk_fail(ctx, EPK_INVALID, "indices %s do not fit data %s", ShapeText(indices).text, ShapeText(data).text);
  }
  const int64_t count = epk_size(&indices), width = width_of(data);
  auto *y = static_cast<char *>(ctx->output(ctx, 0, indices.ndim, indices.shape));
  auto *positions = static_cast<int64_t *>(ctx->scratch(ctx, size_t(count + 1) * 8));
  if (!y || !positions) return EPK_FAILED;
  if (!element_positions(data, indices, axis, positions)) return out_of_range(ctx, data.shape[axis]);
  const auto *from = static_cast<const char *>(data.data);
  for (int64_t i = 0; i < count; i++) memcpy(y + i * width, from + positions[i] * width, size_t(width));
  return EPK_OK;
}

// Attributes: batch_dims.
EPK_OPERATOR(gather_nd) {
  const DLTensor &data = in[0], &indices = in[1];
  const int64_t batch_dims = *static_cast<const int64_t *>(attributes);
  if (!is_index(indices) || indices.ndim < 1 || batch_dims < 0 || batch_dims >= indices.ndim || batch_dims >= data.ndim) {
    return epk_fail(ctx, EPK_INVALID, "batch_dims must be less than the ranks of data and indices");
  }
  const int64_t depth = indices.shape[indices.ndim - 1];
  if (depth < 1 || depth > data.ndim - batch_dims) return epk_fail(ctx, EPK_INVALID, "indices hold tuples of %lld", (long long)depth);
  for (int i = 0; i < batch_dims; i++)
    if (data.shape[i] != indices.shape[i]) return epk_fail(ctx, EPK_INVALID, "data and indices differ in batch_dims");
  int64_t dims[2 * MAX_RANK];
  int rank = 0;
  for (int i = 0; i + 1 < indices.ndim; i++) dims[rank++] = indices.shape[i];
  const int first = int(batch_dims + depth);
  for (int i = first; i < data.ndim; i++) dims[rank++] = data.shape[i];
  if (rank > MAX_RANK) return epk_fail(ctx, EPK_UNSUPPORTED, "more than %d dimensions", MAX_RANK);
  const int64_t count = product(indices.shape, indices.ndim - 1), batch = product(data.shape, int(batch_dims));
  const int64_t span = product(data.shape + batch_dims, int(depth));
  const int64_t bytes = product(data.shape + first, data.ndim - first) * width_of(data);
  auto *y = static_cast<char *>(ctx->output(ctx, 0, rank, dims));
  auto *flat = static_cast<int64_t *>(ctx->scratch(ctx, size_t(count + 1) * 8));
  if (!y || !flat) return EPK_FAILED;
  if (!flat_positions(indices, data.shape + batch_dims, int(depth), count, flat)) return out_of_range(ctx, span);
  const auto *from = static_cast<const char *>(data.data);
  const int64_t per_item = batch ? count / batch : 0;
  for (int64_t i = 0; i < count; i++) {
    memcpy(y + i * bytes, from + (i / per_item * span + flat[i]) * bytes, size_t(bytes));
  }
  return EPK_OK;
}

// Attributes: reduction. Inputs: data, indices, updates.
EPK_OPERATOR(scatter_nd) {
  const DLTensor &data = in[0], &indices = in[1], &updates = in[2];
  if (!is_index(indices) || indices.ndim < 1) return epk_fail(ctx, EPK_INVALID, "indices must hold tuples");
  const int64_t depth = indices.shape[indices.ndim - 1], count = product(indices.shape, indices.ndim - 1);
  if (depth < 1 || depth > data.ndim) return epk_fail(ctx, EPK_INVALID, "indices hold tuples of %lld", (long long)depth);
  const int64_t inner = product(data.shape + depth, data.ndim - int(depth));
  bool fits = updates.ndim == indices.ndim - 1 + data.ndim - int(depth);
  for (int i = 0; fits && i < updates.ndim; i++) {
    fits = updates.shape[i] == (i < indices.ndim - 1 ? indices.shape[i] : data.shape[depth + i - (indices.ndim - 1)]);
  }
  if (!fits) return epk_fail(ctx, EPK_INVALID, "updates %s do not fit indices %s", ShapeText(updates).text, ShapeText(indices).text);
  auto *flat = static_cast<int64_t *>(ctx->scratch(ctx, size_t(count + 1) * 8));
  if (!flat) return EPK_FAILED;
  if (!flat_positions(indices, data.shape, int(depth), count, flat)) return out_of_range(ctx, epk_size(&data));
  return scatter(ctx, data, updates, out, flat, count, inner, *static_cast<const int64_t *>(attributes));
}

// Attributes: reduction, axis. Inputs: data, indices, updates.
EPK_OPERATOR(scatter_elements) {
  const auto *how = static_cast<const int64_t *>(attributes);
  const DLTensor &data = in[0], &indices = in[1], &updates = in[2];
  const int axis = normal_axis(how[1], data.ndim);
  bool fits = axis >= 0 && is_index(indices) && elements_fit(data, indices, axis) && updates.ndim == indices.ndim;
  for (int i = 0; fits && i < updates.ndim; i++) fits = updates.shape[i] == indices.shape[i];
  if (!fits) return epk_fail(ctx, EPK_INVALID, "indices %s and updates %s do not fit data %s", ShapeText(indices).text, ShapeText(updates).text, ShapeText(data).text);
  const int64_t count = epk_size(&indices);
  auto *positions = static_cast<int64_t *>(ctx->scratch(ctx, size_t(count + 1) * 8));
  if (!positions) return EPK_FAILED;
  if (!element_positions(data, indices, axis, positions)) return out_of_range(ctx, data.shape[axis]);
  return scatter(ctx, data, updates, out, positions, count, 1, how[0]);
}

}  // namespace EPK_NS
