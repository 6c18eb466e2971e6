// Operators that move values without computing: Transpose, Expand, Slice, Split, Concat, Pad, Tile, ...
#include "copy.h"
#include "engine_context.h"

namespace EPK_NS {
namespace {

constexpr int64_t LEAST_VIEW = 4096;  // bytes; smaller parts are copied: that is quick, and lets the whole go

// The output as a part of input 0, `offset` elements from its start.
bool is_view(epk_context *ctx, const DLTensor &x, int index, const int64_t *dims, int64_t offset) {
  const auto *own = reinterpret_cast<const epk::EngineContext *>(ctx);
  if (product(dims, x.ndim) * width_of(x) < LEAST_VIEW) return false;
  return own->view(ctx, index, 0, x.ndim, dims, offset * width_of(x)) != 0;
}

// True if a strided tensor lies in one piece.
bool is_dense(const int64_t *dims, const int64_t *strides, int rank) {
  int64_t expected = 1;
  for (int i = rank - 1; i >= 0; expected *= dims[i--])
    if (dims[i] != 1 && strides[i] != expected) return false;
  return true;
}

// int64 numbers after a count.
struct Numbers {
  int64_t count;
  int64_t at[1];
};

const char *data_of(const DLTensor &t) { return static_cast<const char *>(t.data); }

}  // namespace

// Attributes: the permutation; none reverses.
EPK_OPERATOR(transpose) {
  const auto &perm = *static_cast<const Numbers *>(attributes);
  const DLTensor &x = in[0];
  int64_t order[MAX_RANK], dims[MAX_RANK], strides[MAX_RANK], own[MAX_RANK];
  bool seen[MAX_RANK] = {};
  if (perm.count != 0 && perm.count != x.ndim) return epk_fail(ctx, EPK_INVALID, "perm has %d entries, the input has rank %d", int(perm.count), x.ndim);
  dense_strides(x, own);
  for (int i = 0; i < x.ndim; i++) {
    order[i] = perm.count ? perm.at[i] : x.ndim - 1 - i;
    if (order[i] < 0 || order[i] >= x.ndim || seen[order[i]]) return epk_fail(ctx, EPK_INVALID, "perm is not a permutation");
    seen[order[i]] = true;
    dims[i] = x.shape[order[i]];
    strides[i] = own[order[i]];
  }
  // Nothing moves where only dimensions of size 1 change places.
  int64_t before = -1;
  bool moves = false;
  for (int i = 0; i < x.ndim; i++) {
    if (dims[i] == 1) continue;
    moves |= order[i] < before;
    before = order[i];
  }
  if (!moves) return ctx->alias(ctx, 0, 0, x.ndim, dims);
  auto *y = static_cast<char *>(ctx->output(ctx, 0, x.ndim, dims));
  if (!y) return EPK_FAILED;
  strided_copy(ctx, data_of(x), y, x.ndim, dims, strides, width_of(x));
  return EPK_OK;
}

// The second input is the shape to broadcast with.
EPK_OPERATOR(expand) {
  const DLTensor &x = in[0];
  int64_t wanted[MAX_RANK], dims[MAX_RANK], own[MAX_RANK], strides[MAX_RANK];
  int n = read_ints(in[1], wanted);
  if (n < 0) return epk_fail(ctx, EPK_UNSUPPORTED, "more than %d dimensions", MAX_RANK);
  int rank = broadcast(x.shape, x.ndim, wanted, n, dims);
  if (rank < 0) return epk_fail(ctx, EPK_INVALID, "the shape does not broadcast with %s", ShapeText(x).text);
  auto *y = static_cast<char *>(ctx->output(ctx, 0, rank, dims));
  if (!y) return EPK_FAILED;
  dense_strides(x, own);
  for (int i = 0; i < rank; i++) {
    int j = i - (rank - x.ndim);
    strides[i] = j < 0 || x.shape[j] == 1 ? 0 : own[j];
  }
  strided_copy(ctx, data_of(x), y, rank, dims, strides, width_of(x));
  return EPK_OK;
}

// Attributes: whether starts, ends, axes follow (opset 1), else they are inputs, as are the steps.
EPK_OPERATOR(slice) {
  const auto *how = static_cast<const int64_t *>(attributes);
  const DLTensor &x = in[0];
  int64_t starts[MAX_RANK], ends[MAX_RANK], axes[MAX_RANK], steps[MAX_RANK];
  int n, n_axes = -1, n_steps = -1;
  if (how[0]) {
    n = int(how[1]);
    if (n > MAX_RANK) return EPK_UNSUPPORTED;
    n_axes = n;
    for (int i = 0; i < n; i++) starts[i] = how[2 + i], ends[i] = how[2 + n + i], axes[i] = how[2 + 2 * n + i];
  } else {
    n = read_ints(in[1], starts);
    if (n < 0 || read_ints(in[2], ends) != n) return epk_fail(ctx, EPK_INVALID, "starts and ends differ in number");
    if (n_in > 3 && !absent(in[3])) n_axes = read_ints(in[3], axes);
    if (n_in > 4 && !absent(in[4])) n_steps = read_ints(in[4], steps);
    if ((n_in > 3 && !absent(in[3]) && n_axes != n) || (n_in > 4 && !absent(in[4]) && n_steps != n)) {
      return epk_fail(ctx, EPK_INVALID, "starts, axes and steps differ in number");
    }
  }
  int64_t dims[MAX_RANK], strides[MAX_RANK], offset = 0;
  bool seen[MAX_RANK] = {};
  dense_strides(x, strides);
  for (int i = 0; i < x.ndim; i++) dims[i] = x.shape[i];
  for (int i = 0; i < n; i++) {
    int axis = normal_axis(n_axes >= 0 ? axes[i] : i, x.ndim);
    int64_t step = n_steps >= 0 ? steps[i] : 1;
    if (axis < 0 || seen[axis]) return epk_fail(ctx, EPK_INVALID, "the axes are out of range or repeated");
    if (step == 0 || step == INT64_MIN) return epk_fail(ctx, EPK_INVALID, "a step of 0");
    seen[axis] = true;
    const int64_t d = x.shape[axis];
    int64_t start = starts[i] < 0 ? starts[i] + d : starts[i], end = ends[i] < 0 ? ends[i] + d : ends[i];
    if (step > 0) {
      start = min_of(max_of<int64_t>(start, 0), d), end = min_of(max_of<int64_t>(end, 0), d);
      dims[axis] = end > start ? (end - start - 1) / step + 1 : 0;
    } else {
      start = min_of(max_of<int64_t>(start, 0), d - 1), end = min_of(max_of<int64_t>(end, -1), d - 1);
      dims[axis] = start > end ? (start - end - 1) / -step + 1 : 0;
    }
    if (dims[axis] > 0) offset += start * strides[axis];
    strides[axis] = dims[axis] > 1 ? strides[axis] * step : 0;
  }
  const int64_t size = product(dims, x.ndim);
  if (epk_size(&x) == size && offset == 0) return ctx->alias(ctx, 0, 0, x.ndim, dims);
  // A small part that is a view would keep the whole in memory.
  if (size >= epk_size(&x) / 8 && is_dense(dims, strides, x.ndim) && is_view(ctx, x, 0, dims, offset)) return EPK_OK;
  auto *y = static_cast<char *>(ctx->output(ctx, 0, x.ndim, dims));
  if (!y) return EPK_FAILED;
  strided_copy(ctx, data_of(x) + offset * width_of(x), y, x.ndim, dims, strides, width_of(x));
  return EPK_OK;
}

// Attributes: axis; uneven: without lengths the last part may be smaller; lengths (a count and numbers; none: equal).
EPK_OPERATOR(split) {
  const auto *how = static_cast<const int64_t *>(attributes);
  const DLTensor &x = in[0];
  const int axis = normal_axis(how[0], x.ndim);
  if (axis < 0) return epk_fail(ctx, EPK_INVALID, "axis %lld is out of range", (long long)how[0]);
  const int64_t size = x.shape[axis], inner = product(x.shape + axis + 1, x.ndim - axis - 1);
  const int64_t outer = product(x.shape, axis), width = width_of(x);
  auto *lengths = static_cast<int64_t *>(ctx->scratch(ctx, size_t(n_out) * 8));
  if (!lengths) return EPK_FAILED;
  const bool given = n_in > 1 && !absent(in[1]);
  const int64_t part = ceil_div(size, n_out);
  int64_t sum = 0;
  if (given && epk_size(&in[1]) != n_out) return epk_fail(ctx, EPK_INVALID, "the lengths are not as many as the outputs");
  if (!given && how[2] != 0 && how[2] != n_out) return epk_fail(ctx, EPK_INVALID, "the lengths are not as many as the outputs");
  for (int i = 0; i < n_out; i++) {
    if (given) lengths[i] = in[1].dtype.bits == 64 ? ((int64_t *)in[1].data)[i] : ((int32_t *)in[1].data)[i];
    else if (how[2]) lengths[i] = how[3 + i];
    else lengths[i] = i + 1 < n_out ? part : size - part * (n_out - 1);
    if (lengths[i] < 0 || lengths[i] > size) return epk_fail(ctx, EPK_INVALID, "axis %d of size %lld does not split", axis, (long long)size);
    sum += lengths[i];
  }
  if (sum != size || (!given && !how[2] && !how[1] && size % n_out)) {
    return epk_fail(ctx, EPK_INVALID, "the lengths do not split axis %d of size %lld into %d outputs", axis, (long long)size, n_out);
  }
  int64_t dims[MAX_RANK], start = 0;
  for (int i = 0; i < x.ndim; i++) dims[i] = x.shape[i];
  for (int i = 0; i < n_out; start += lengths[i++]) {
    if (out[i].ndim < 0) continue;
    dims[axis] = lengths[i];
    if (outer == 1 && is_view(ctx, x, i, dims, start * inner)) continue;
    auto *y = static_cast<char *>(ctx->output(ctx, i, x.ndim, dims));
    if (!y) return EPK_FAILED;
    copy_rows(ctx, data_of(x) + start * inner * width, size * inner * width, y, lengths[i] * inner * width, outer,
              lengths[i] * inner * width);
  }
  return EPK_OK;
}

// Attributes: axis.
EPK_OPERATOR(concat) {
  const DLTensor &first = in[0];
  const int axis = normal_axis(*static_cast<const int64_t *>(attributes), first.ndim);
  if (axis < 0) return epk_fail(ctx, EPK_INVALID, "the axis is out of range for %s", ShapeText(first).text);
  int64_t dims[MAX_RANK];
  for (int i = 0; i < first.ndim; i++) dims[i] = first.shape[i];
  dims[axis] = 0;
  for (int k = 0; k < n_in; k++) {
    bool fits = in[k].ndim == first.ndim;
    for (int i = 0; fits && i < first.ndim; i++) fits = i == axis || in[k].shape[i] == first.shape[i];
    if (!fits) return epk_fail(ctx, EPK_INVALID, "the shapes %s and %s differ outside axis %d", ShapeText(first).text, ShapeText(in[k]).text, axis);
    dims[axis] += in[k].shape[axis];
  }
  auto *y = static_cast<char *>(ctx->output(ctx, 0, first.ndim, dims));
  if (!y) return EPK_FAILED;
  const int64_t outer = product(dims, axis), inner = product(dims + axis + 1, first.ndim - axis - 1) * width_of(first);
  int64_t start = 0;
  for (int k = 0; k < n_in; k++) {
    const int64_t bytes = in[k].shape[axis] * inner;
    if (data_of(in[k]) != y + start) copy_rows(ctx, data_of(in[k]), bytes, y + start, dims[axis] * inner, outer, bytes);
    start += bytes;
  }
  return EPK_OK;
}

namespace {

// to[i, j, ...] = from[map0[i], map1[j], ...]; where a map says -1, `fill`.
void mapped_copy(epk_context *ctx, const DLTensor &x, char *to, const int64_t *dims, const int64_t *const *maps,
                 const char *fill) {
  const int rank = x.ndim;
  const int64_t width = width_of(x);
  const char *from = data_of(x);
  if (rank == 0) {
    memcpy(to, from, size_t(width));
    return;
  }
  int64_t strides[MAX_RANK];
  dense_strides(x, strides);
  const int last = rank - 1;
  const int64_t inner = dims[last], rows = product(dims, last);
  if (rows == 0 || inner == 0) return;
  in_parallel(ctx, rows, grain_of(ctx, rows, ceil_div(65536, inner * width)), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; r++) {
      int64_t rest = r, offset = 0;
      bool outside = false;
      for (int i = last - 1; i >= 0; i--) {
        const int64_t index = maps[i][rest % dims[i]];
        rest /= dims[i];
        outside |= index < 0;
        offset += index * strides[i];
      }
      char *row = to + r * inner * width;
      for (int64_t j = 0; j < inner;) {
        const int64_t index = maps[last][j];
        if (outside || index < 0) {
          memcpy(row + j++ * width, fill, size_t(width));
          continue;
        }
        int64_t run = 1;
        while (j + run < inner && maps[last][j + run] == index + run) run++;
        memcpy(row + j * width, from + (offset + index) * width, size_t(run * width));
        j += run;
      }
    }
  });
}

enum { PAD_CONSTANT, PAD_REFLECT, PAD_EDGE, PAD_WRAP };

int64_t pad_source(int64_t index, int64_t size, int64_t mode) {
  if (index >= 0 && index < size) return index;
  switch (mode) {
    case PAD_EDGE: return index < 0 ? 0 : size - 1;
    case PAD_WRAP: index %= size; return index < 0 ? index + size : index;
    case PAD_REFLECT: {
      if (size == 1) return 0;
      const int64_t period = 2 * (size - 1);
      index %= period;
      if (index < 0) index += period;
      return index < size ? index : period - index;
    }
  }
  return -1;
}

}  // namespace

// Attributes: mode; whether the pads follow (a count and numbers), else they are the second input; then whether a
// value (double) follows. Inputs: data, pads, value, axes.
EPK_OPERATOR(pad) {
  const auto *how = static_cast<const int64_t *>(attributes);
  const DLTensor &x = in[0];
  int64_t begins[MAX_RANK] = {}, ends[MAX_RANK] = {}, axes[MAX_RANK], dims[MAX_RANK];
  int n_axes = x.ndim;
  for (int i = 0; i < x.ndim; i++) axes[i] = i;
  if (n_in > 3 && !absent(in[3]) && (n_axes = read_ints(in[3], axes)) < 0) return EPK_INVALID;
  if (!how[1] && epk_size(&in[1]) != 2 * n_axes) return epk_fail(ctx, EPK_INVALID, "pads must be %d numbers", 2 * n_axes);
  if (how[1] && how[2] != 2 * n_axes) return epk_fail(ctx, EPK_INVALID, "pads must be %d numbers", 2 * n_axes);
  bool seen[MAX_RANK] = {};
  for (int i = 0; i < n_axes; i++) {
    const int axis = normal_axis(axes[i], x.ndim);
    if (axis < 0 || seen[axis]) return epk_fail(ctx, EPK_INVALID, "the axes are out of range or repeated");
    seen[axis] = true;
    const auto *given = static_cast<const int64_t *>(in[1].data);
    begins[axis] = how[1] ? how[3 + i] : given[i];
    ends[axis] = how[1] ? how[3 + n_axes + i] : given[n_axes + i];
  }
  size_t entries = 0;
  for (int i = 0; i < x.ndim; i++) {
    int64_t d;
    if (__builtin_add_overflow(x.shape[i], begins[i], &d) || __builtin_add_overflow(d, ends[i], &d) || d < 0) {
      return epk_fail(ctx, EPK_INVALID, "the pads leave no size for axis %d", i);
    }
    if (x.shape[i] == 0 && d > 0 && how[0] != PAD_CONSTANT) return epk_fail(ctx, EPK_INVALID, "axis %d is empty, nothing can be repeated", i);
    if (how[0] == PAD_REFLECT && d > 0 && x.shape[i] == 1 && (begins[i] > 0 || ends[i] > 0)) return epk_fail(ctx, EPK_UNSUPPORTED, "reflection of one element");
    if (how[0] != PAD_CONSTANT && (begins[i] < 0 || ends[i] < 0) && (begins[i] > 0 || ends[i] > 0)) {
      return epk_fail(ctx, EPK_UNSUPPORTED, "what is cut off is not repeated");
    }
    dims[i] = d;
    entries += size_t(d);
  }
  auto *y = static_cast<char *>(ctx->output(ctx, 0, x.ndim, dims));
  auto *map = static_cast<int64_t *>(ctx->scratch(ctx, (entries + 1) * 8));
  if (!y || !map) return EPK_FAILED;
  const int64_t *maps[MAX_RANK];
  for (int i = 0; i < x.ndim; i++) {
    maps[i] = map;
    for (int64_t j = 0; j < dims[i]; j++) *map++ = pad_source(j - begins[i], x.shape[i], how[0]);
  }
  char zero[16] = {};
  const char *fill = n_in > 2 && !absent(in[2]) ? data_of(in[2]) : zero;
  mapped_copy(ctx, x, y, dims, maps, fill);
  return EPK_OK;
}

// The second input says how often each dimension is repeated.
EPK_OPERATOR(tile) {
  const DLTensor &x = in[0];
  int64_t repeats[MAX_RANK], dims[MAX_RANK];
  if (epk_size(&in[1]) != x.ndim || read_ints(in[1], repeats) < 0) return epk_fail(ctx, EPK_INVALID, "repeats must be %d counts", x.ndim);
  size_t entries = 0;
  for (int i = 0; i < x.ndim; i++) {
    dims[i] = checked_mul(x.shape[i], repeats[i]);
    if (dims[i] < 0) return epk_fail(ctx, EPK_INVALID, "repeats must be counts of at least 0");
    entries += size_t(dims[i]);
  }
  auto *y = static_cast<char *>(ctx->output(ctx, 0, x.ndim, dims));
  auto *map = static_cast<int64_t *>(ctx->scratch(ctx, (entries + 1) * 8));
  if (!y || !map) return EPK_FAILED;
  const int64_t *maps[MAX_RANK];
  for (int i = 0; i < x.ndim; i++) {
    maps[i] = map;
    for (int64_t j = 0; j < dims[i]; j++) *map++ = j % x.shape[i];
  }
  mapped_copy(ctx, x, y, dims, maps, nullptr);
  return EPK_OK;
}

// Attributes: blocksize, whether to space (1) or to depth (0), whether DCR (1) or CRD (0).
EPK_OPERATOR(depth_space) {
  const auto *how = static_cast<const int64_t *>(attributes);
  const DLTensor &x = in[0];
  const int64_t b = how[0];
  if (x.ndim != 4 || b < 1 || b > 32768) return epk_fail(ctx, EPK_INVALID, "expected an input [N, C, H, W] and a positive blocksize");
  const int64_t n = x.shape[0], c = x.shape[1], h = x.shape[2], w = x.shape[3];
  if (how[1] ? c % (b * b) != 0 : (h % b != 0 || w % b != 0)) return epk_fail(ctx, EPK_INVALID, "blocksize %lld does not divide %s", (long long)b, ShapeText(x).text);
  int64_t dims[4], view[6], strides[6];
  if (how[1]) {
    const int64_t k = c / (b * b), hw = h * w;
    dims[0] = n, dims[1] = k, dims[2] = h * b, dims[3] = w * b;
    const int64_t first = how[2] ? k * b * hw : b * hw, second = how[2] ? k * hw : hw, depth = how[2] ? hw : b * b * hw;
    const int64_t v[6] = {n, k, h, b, w, b}, s[6] = {c * hw, depth, w, first, 1, second};
    memcpy(view, v, sizeof v), memcpy(strides, s, sizeof s);
  } else {
    dims[0] = n, dims[1] = c * b * b, dims[2] = h / b, dims[3] = w / b;
    const int64_t v[6] = {n, b, b, c, h / b, w / b}, s[6] = {c * h * w, w, 1, h * w, w * b, b};
    memcpy(view, v, sizeof v), memcpy(strides, s, sizeof s);
    if (!how[2]) {  // channels first, then the block
      const int64_t v2[6] = {n, c, b, b, h / b, w / b}, s2[6] = {c * h * w, h * w, w, 1, w * b, b};
      memcpy(view, v2, sizeof v2), memcpy(strides, s2, sizeof s2);
    }
  }
  auto *y = static_cast<char *>(ctx->output(ctx, 0, 4, dims));
  if (!y) return EPK_FAILED;
  strided_copy(ctx, data_of(x), y, 6, view, strides, width_of(x));
  return EPK_OK;
}

// start, limit, delta: numbers of one type (float32, float64, int16, int32, int64).
EPK_OPERATOR(range) {
  for (int i = 0; i < 3; i++)
    if (epk_size(&in[i]) != 1) return epk_fail(ctx, EPK_INVALID, "start, limit and delta must be single numbers");
  double start, limit, delta;
  int64_t count = 0;
  const DLDataType type = in[0].dtype;
  if (type.code == kDLFloat) {
    auto number = [&](int i) { return type.bits == 64 ? *(double *)in[i].data : double(*(float *)in[i].data); };
    start = number(0), limit = number(1), delta = number(2);
    if (delta == 0) return epk_fail(ctx, EPK_INVALID, "a delta of 0");
    const double n = __builtin_ceil((limit - start) / delta);
    if (!(n < 9e18)) return epk_fail(ctx, EPK_OUT_OF_MEMORY, "a range of endless length");
    count = n > 0 ? int64_t(n) : 0;
    void *y = ctx->output(ctx, 0, 1, &count);
    if (!y) return EPK_FAILED;
    for (int64_t i = 0; i < count; i++) {
      if (type.bits == 64) ((double *)y)[i] = start + double(i) * delta;
      else ((float *)y)[i] = float(start) + float(i) * float(delta);
    }
    return EPK_OK;
  }
  auto whole = [&](int i) -> int64_t {
    return type.bits == 64 ? *(int64_t *)in[i].data : type.bits == 32 ? *(int32_t *)in[i].data : *(int16_t *)in[i].data;
  };
  const __int128 a = whole(0), b = whole(1), d = whole(2);
  if (d == 0) return epk_fail(ctx, EPK_INVALID, "a delta of 0");
  const __int128 n = (b - a + (d > 0 ? d - 1 : d + 1)) / d;
  if (n > INT64_MAX) return epk_fail(ctx, EPK_OUT_OF_MEMORY, "a range of endless length");
  count = n > 0 ? int64_t(n) : 0;
  void *y = ctx->output(ctx, 0, 1, &count);
  if (!y) return EPK_FAILED;
  for (int64_t i = 0; i < count; i++) {
    const int64_t value = int64_t(a + i * d);
    if (type.bits == 64) ((int64_t *)y)[i] = value;
    else if (type.bits == 32) ((int32_t *)y)[i] = int32_t(value);
    else ((int16_t *)y)[i] = int16_t(value);
  }
  return EPK_OK;
}

// The first input is the shape, the second the value (one element of the output's type).
EPK_OPERATOR(constant_of_shape) {
  int64_t dims[MAX_RANK];
  int rank = read_ints(in[0], dims);
  if (rank < 0 || in[0].ndim != 1) return epk_fail(ctx, EPK_INVALID, "the shape must be at most %d int64 numbers", MAX_RANK);
  auto *y = static_cast<char *>(ctx->output(ctx, 0, rank, dims));
  if (!y) return EPK_FAILED;
  fill_with(ctx, y, epk_size(&out[0]), data_of(in[1]), width_of(out[0]));
  return EPK_OK;
}

// Attributes: upper. Inputs: matrices, and the diagonal (may be absent).
EPK_OPERATOR(trilu) {
  const auto upper = *static_cast<const int64_t *>(attributes);
  const DLTensor &x = in[0];
  if (x.ndim < 2) return epk_fail(ctx, EPK_INVALID, "the input must hold matrices");
  const bool given = n_in > 1 && !absent(in[1]);
  if (given && (epk_size(&in[1]) != 1 || !is_type(in[1], kDLInt, 64))) return epk_fail(ctx, EPK_INVALID, "k must be one int64 number, not %s", ShapeText(in[1]).text);
  const int64_t k = given ? *(int64_t *)in[1].data : 0;
  const int64_t rows = x.shape[x.ndim - 2], columns = x.shape[x.ndim - 1], width = width_of(x);
  auto *y = static_cast<char *>(ctx->output(ctx, 0, x.ndim, x.shape));
  if (!y) return EPK_FAILED;
  const int64_t all = product(x.shape, x.ndim - 1);
  for (int64_t r = 0; r < all; r++) {
    const int64_t row = r % max_of<int64_t>(rows, 1);
    // upper keeps columns from row + k on, lower those up to row + k
    int64_t edge = k > columns ? columns : k < -rows ? -rows : k;
    edge = min_of(max_of<int64_t>(row + edge + (upper ? 0 : 1), 0), columns);
    const int64_t from = upper ? edge : 0, to = upper ? columns : edge;
    memset(y + r * columns * width, 0, size_t(columns * width));
    memcpy(y + (r * columns + from) * width, data_of(x) + (r * columns + from) * width, size_t((to - from) * width));
  }
  return EPK_OK;
}

}  // namespace EPK_NS
