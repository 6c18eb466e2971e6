// Operators that give the shape, or another one.
#include "ops.h"

namespace EPK_NS {
namespace {

enum { RESHAPE, FLATTEN, SQUEEZE, UNSQUEEZE };

// mode; flag: allowzero (1) or Identity (2) of Reshape, "all" of Squeeze, the axis of Flatten; from_input: the numbers
// are the second input, else they follow.
struct ReshapeAttributes {
  int64_t mode, flag, from_input, count, numbers[1];
};

int reshape_to(epk_context *ctx, const DLTensor &x, const int64_t *wanted, int n, bool allow_zero, int64_t *shape) {
  int hole = -1;
  int64_t known = 1, total = epk_size(&x);
  for (int i = 0; i < n; i++) {
    shape[i] = wanted[i];
    if (wanted[i] == 0 && !allow_zero) {
      if (i >= x.ndim) return epk_fail(ctx, EPK_INVALID, "the shape keeps dimension %d of a tensor of rank %d", i, x.ndim);
      shape[i] = x.shape[i];
    }
    if (wanted[i] == -1) {
      if (hole >= 0) return epk_fail(ctx, EPK_INVALID, "the shape holds more than one -1");
      hole = i;
    } else {
      known = checked_mul(known, shape[i]);
      if (known < 0) return epk_fail(ctx, EPK_INVALID, "the shape holds a negative value other than -1, or overflows");
    }
  }
  if (hole >= 0) {
    if (known == 0 || total % known) {
      return epk_fail(ctx, EPK_INVALID, "the shape leaves no whole size for -1: the data has %lld elements", (long long)total);
    }
    shape[hole] = total / known;
  } else if (known != total) {
    return epk_fail(ctx, EPK_INVALID, "the shape has %lld elements, the data %s has %lld", (long long)known,
                     ShapeText(x).text, (long long)total);
  }
  return EPK_OK;
}

bool marks(epk_context *ctx, const int64_t *axes, int n, int rank, bool *marked) {
  for (int i = 0; i < rank; i++) marked[i] = false;
  for (int i = 0; i < n; i++) {
    int axis = normal_axis(axes[i], rank);
    if (axis < 0 || marked[axis]) {
      epk_fail(ctx, EPK_INVALID, axis < 0 ? "axis %lld is out of range for rank %d" : "axis %lld is named twice (rank %d)",
                (long long)axes[i], rank);
      return false;
    }
    marked[axis] = true;
  }
  return true;
}

}  // namespace

EPK_OPERATOR(reshape) {
  const auto &how = *static_cast<const ReshapeAttributes *>(attributes);
  const DLTensor &x = in[0];
  int64_t numbers[MAX_RANK], shape[MAX_RANK];
  int n = 0, rank = 0;
  if (how.from_input) {
    n = read_ints(in[1], numbers);
    if (n < 0) return epk_fail(ctx, EPK_UNSUPPORTED, "more than %d dimensions", MAX_RANK);
  } else {
    if (how.count > MAX_RANK) return epk_fail(ctx, EPK_UNSUPPORTED, "more than %d dimensions", MAX_RANK);
    n = int(how.count);
    for (int i = 0; i < n; i++) numbers[i] = how.numbers[i];
  }
  bool marked[2 * MAX_RANK];
  switch (how.mode) {
    case RESHAPE:
      if (how.flag == 2) return ctx->alias(ctx, 0, 0, x.ndim, x.shape);
      for (int i = 0; how.flag && i < n; i++) {
        for (int j = 0; j < n; j++) {
          if (numbers[i] == 0 && numbers[j] == -1) return epk_fail(ctx, EPK_INVALID, "the shape holds 0 and -1, which allowzero=1 leaves ambiguous");
        }
      }
      if (int status = reshape_to(ctx, x, numbers, n, how.flag != 0, shape)) return status;
      rank = n;
      break;
    case FLATTEN: {
      int64_t axis = how.flag < 0 ? how.flag + x.ndim : how.flag;
      if (axis < 0 || axis > x.ndim) return epk_fail(ctx, EPK_INVALID, "axis %lld is out of range", (long long)how.flag);
      shape[0] = product(x.shape, int(axis));
      shape[1] = product(x.shape + axis, x.ndim - int(axis));
      rank = 2;
      break;
    }
    case SQUEEZE:
      if (!marks(ctx, numbers, n, x.ndim, marked)) return EPK_INVALID;
      for (int i = 0; i < x.ndim; i++) {
        if (marked[i] && x.shape[i] != 1) return epk_fail(ctx, EPK_INVALID, "axis %d has size %lld, only size 1 can be squeezed", i, (long long)x.shape[i]);
        if (!(marked[i] || (how.flag && x.shape[i] == 1))) shape[rank++] = x.shape[i];
      }
      break;
    default:
      rank = x.ndim + n;
      if (rank > MAX_RANK) return epk_fail(ctx, EPK_UNSUPPORTED, "more than %d dimensions", MAX_RANK);
      if (!marks(ctx, numbers, n, rank, marked)) return EPK_INVALID;
      for (int i = 0, j = 0; i < rank; i++) shape[i] = marked[i] ? 1 : x.shape[j++];
  }
  return ctx->alias(ctx, 0, 0, rank, shape);
}

// Shape's start and end, or Size.
struct ShapeAttributes {
  int64_t start, end, size;
};

EPK_OPERATOR(shape) {
  const auto &how = *static_cast<const ShapeAttributes *>(attributes);
  if (how.size) {
    auto *y = static_cast<int64_t *>(ctx->output(ctx, 0, 0, nullptr));
    if (!y) return EPK_FAILED;
    *y = epk_size(&in[0]);
    return EPK_OK;
  }
  int64_t rank = in[0].ndim, start = how.start, end = how.end;
  start = max_of<int64_t>(start < 0 ? start + rank : start, 0);
  end = min_of<int64_t>(end < 0 ? end + rank : end, rank);
  int64_t count = max_of<int64_t>(end - start, 0);
  auto *y = static_cast<int64_t *>(ctx->output(ctx, 0, 1, &count));
  if (!y) return EPK_FAILED;
  for (int64_t i = 0; i < count; i++) y[i] = in[0].shape[start + i];
  return EPK_OK;
}

}  // namespace EPK_NS
