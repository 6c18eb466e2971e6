// Reductions over axes, and what goes along one axis: ArgMax, CumSum, TopK. Sums of floats are kept in double.
#include "../kernels/vmath.h"
#include "copy.h"

namespace EPK_NS {
namespace {

enum { SUM, MEAN, PROD, MAX, MIN, L1, SUM_SQUARE, L2, LOG_SUM, LOG_SUM_EXP };

template <class T> struct Sum { typedef T type; };
template <> struct Sum<float> { typedef double type; };
template <> struct Sum<int32_t> { typedef uint32_t type; };
template <> struct Sum<int64_t> { typedef uint64_t type; };

template <class T> T lowest() { return T(1) / T(2) != T(0) ? T(-__builtin_inf()) : T(uint64_t(1) << (sizeof(T) * 8 - 1)); }
template <class T> T highest() { return T(1) / T(2) != T(0) ? T(__builtin_inf()) : T(~(uint64_t(1) << (sizeof(T) * 8 - 1))); }

// One of the reductions as a start, a step and an end. A is the accumulator.
template <class T, int how> struct Rule {
  typedef typename Sum<T>::type S;
  static constexpr bool extreme = how == MAX || how == MIN;
  template <bool e, class X, class Y> struct Pick { typedef Y type; };
  template <class X, class Y> struct Pick<true, X, Y> { typedef X type; };
  typedef typename Pick<extreme, T, S>::type A;

  static A start() { return how == MAX ? A(lowest<T>()) : how == MIN ? A(highest<T>()) : how == PROD ? A(1) : A(0); }
  static A step(A a, T x) {
    switch (how) {
      case MAX: return (a > A(x)) | (a != a) ? a : A(x);
      case MIN: return (a < A(x)) | (a != a) ? a : A(x);
      case PROD: return a * A(x);
      case L1: return a + (x < 0 ? A(0) - A(x) : A(x));
      case SUM_SQUARE: case L2: return a + A(x) * A(x);
      default: return a + A(x);
    }
  }
  static A join(A a, A b) {
    switch (how) {
      case MAX: return (a > b) | (a != a) ? a : b;
      case MIN: return (a < b) | (a != a) ? a : b;
      case PROD: return a * b;
      default: return a + b;
    }
  }
  static T end(A a, int64_t count) {
    switch (how) {
      case MEAN: return T(1) / T(2) != T(0) ? T(a / A(count)) : count ? T(T(a) / T(count)) : T(a);
      case L2: return T(__builtin_sqrt(double(a)));
      case LOG_SUM: return T(__builtin_log(double(a)));
      default: return T(a);
    }
  }
};

// x is [outer, count, inner]; out is [outer, inner].
template <class T, int how> void reduce_block(epk_context *ctx, const T *x, T *out, int64_t outer, int64_t count, int64_t inner) {
  typedef Rule<T, how> R;
  typedef typename R::A A;
  const int64_t grain = grain_of(ctx, outer, ceil_div(32768, max_of<int64_t>(count * inner, 1)));
  if (inner == 1) {
    in_parallel(ctx, outer, grain, [&](int64_t begin, int64_t end, int) {
      for (int64_t o = begin; o < end; o++) {
        constexpr int LANES = 16;
        A lanes[LANES];
        for (int l = 0; l < LANES; l++) lanes[l] = R::start();
        const T *row = x + o * count;
        int64_t i = 0;
        for (; i + LANES <= count; i += LANES)
          for (int l = 0; l < LANES; l++) lanes[l] = R::step(lanes[l], row[i + l]);
        for (; i < count; i++) lanes[0] = R::step(lanes[0], row[i]);
        for (int l = 1; l < LANES; l++) lanes[0] = R::join(lanes[0], lanes[l]);
        out[o] = R::end(lanes[0], count);
      }
    });
    return;
  }
  constexpr int64_t COLUMNS = 128;
  const int64_t strips = ceil_div(inner, COLUMNS);
  in_parallel(ctx, outer * strips, grain_of(ctx, outer * strips, ceil_div(32768, max_of<int64_t>(count * min_of(inner, COLUMNS), 1))), [&](int64_t begin, int64_t end, int) {
    for (int64_t item = begin; item < end; item++) {
      const int64_t o = item / strips, first = item % strips * COLUMNS, n = min_of(COLUMNS, inner - first);
      A sums[COLUMNS];
      for (int64_t j = 0; j < n; j++) sums[j] = R::start();
      for (int64_t i = 0; i < count; i++) {
        const T *row = x + (o * count + i) * inner + first;
        for (int64_t j = 0; j < n; j++) sums[j] = R::step(sums[j], row[j]);
      }
      for (int64_t j = 0; j < n; j++) out[o * inner + first + j] = R::end(sums[j], count);
    }
  });
}

void log_sum_exp(epk_context *ctx, const float *x, float *out, int64_t outer, int64_t count, int64_t inner) {
  reduce_block<float, MAX>(ctx, x, out, outer, count, inner);
  for (int64_t o = 0; o < outer; o++) {
    for (int64_t j = 0; j < inner; j++) {
      float top = out[o * inner + j];
      if (top - top != 0) top = 0;
      double sum = 0;
      for (int64_t i = 0; i < count; i++) sum += __builtin_exp(double(x[(o * count + i) * inner + j] - top));
      out[o * inner + j] = float(__builtin_log(sum)) + top;
    }
  }
}

template <class T> int reduce_all(epk_context *ctx, int64_t how, const T *x, T *out, int64_t outer, int64_t count, int64_t inner) {
  switch (how) {
#define CASE(name) case name: reduce_block<T, name>(ctx, x, out, outer, count, inner); return EPK_OK;
    CASE(SUM) CASE(MEAN) CASE(PROD) CASE(MAX) CASE(MIN) CASE(L1) CASE(SUM_SQUARE) CASE(L2) CASE(LOG_SUM)
#undef CASE
  }
  return EPK_UNSUPPORTED;
}

int reduce_any(epk_context *ctx, int64_t how, const DLTensor &t, const void *x, void *out, int64_t outer, int64_t count, int64_t inner) {
  if (is_f32(t) && how == LOG_SUM_EXP) {
    log_sum_exp(ctx, (const float *)x, (float *)out, outer, count, inner);
    return EPK_OK;
  }
  if (is_f32(t)) return reduce_all(ctx, how, (const float *)x, (float *)out, outer, count, inner);
  if (is_type(t, kDLFloat, 64)) return reduce_all(ctx, how, (const double *)x, (double *)out, outer, count, inner);
  if (is_type(t, kDLInt, 32)) return reduce_all(ctx, how, (const int32_t *)x, (int32_t *)out, outer, count, inner);
  if (is_type(t, kDLInt, 64)) return reduce_all(ctx, how, (const int64_t *)x, (int64_t *)out, outer, count, inner);
  return EPK_UNSUPPORTED;
}

}  // namespace

// Attributes: which; keepdims; whether no axes mean none (1) or all (0); the axes (a count and numbers), unless the
// second input has them.
EPK_OPERATOR(reduce) {
  const auto *how = static_cast<const int64_t *>(attributes);
  const DLTensor &x = in[0];
  int64_t axes[MAX_RANK];
  int n = 0;
  if (n_in > 1 && !absent(in[1])) {
    if ((n = read_ints(in[1], axes)) < 0) return epk_fail(ctx, EPK_INVALID, "too many axes");
  } else {
    if (how[3] > MAX_RANK) return EPK_INVALID;
    n = int(how[3]);
    for (int i = 0; i < n; i++) axes[i] = how[4 + i];
  }
  bool gone[MAX_RANK] = {};
  for (int i = 0; i < n; i++) {
    int axis = normal_axis(axes[i], x.ndim);
    if (axis < 0 || gone[axis]) return epk_fail(ctx, EPK_INVALID, "axis %lld is outside the %d axes of the input, or named twice", (long long)axes[i], x.ndim);
    gone[axis] = true;
  }
  if (n == 0 && !how[2])
    for (int i = 0; i < x.ndim; i++) gone[i] = true;
  int64_t dims[MAX_RANK], strides[MAX_RANK], order_dims[MAX_RANK], order_strides[MAX_RANK];
  int rank = 0, last = -1, first = x.ndim, ordered = 0;
  int64_t count = 1;
  dense_strides(x, strides);
  for (int i = 0; i < x.ndim; i++) {
    if (gone[i]) {
      count *= x.shape[i];
      if (how[1]) dims[rank++] = 1;
      if (x.shape[i] != 1) first = min_of(first, i), last = i;
    } else {
      dims[rank++] = x.shape[i];
      order_dims[ordered] = x.shape[i];
      order_strides[ordered++] = strides[i];
    }
  }
  void *y = ctx->output(ctx, 0, rank, dims);
  if (!y) return EPK_FAILED;
  const int64_t size = epk_size(&out[0]);
  if (size == 0) return EPK_OK;
  bool together = true;  // the reduced axes lie next to each other
  for (int i = first; i <= last; i++) together &= gone[i] || x.shape[i] == 1;
  int64_t outer = 1, inner = 1;
  if (together) {
    for (int i = 0; i < x.ndim; i++)
      if (!gone[i]) (i < first ? outer : inner) *= x.shape[i];
    return reduce_any(ctx, how[0], x, x.data, y, outer, count, inner);
  }
  for (int i = 0; i < x.ndim; i++) {
    if (!gone[i]) continue;
    order_dims[ordered] = x.shape[i];
    order_strides[ordered++] = strides[i];
  }
  auto *turned = static_cast<char *>(ctx->scratch(ctx, size_t(epk_size(&x) * width_of(x)) + 64));
  if (!turned) return EPK_FAILED;
  strided_copy(ctx, static_cast<const char *>(x.data), turned, x.ndim, order_dims, order_strides, width_of(x));
  return reduce_any(ctx, how[0], x, turned, y, size, count, 1);
}

namespace {

// a goes before b: greater (or less), NaN as the greatest.
template <class T> bool beats(T a, T b, bool greatest) {
  const bool a_nan = a != a, b_nan = b != b;
  if (a_nan || b_nan) return greatest ? a_nan && !b_nan : b_nan && !a_nan;
  return greatest ? a > b : a < b;
}

struct Along {
  int axis;
  int64_t outer, count, inner;
  bool set(const DLTensor &x, int64_t axis_) {
    axis = normal_axis(axis_, x.ndim);
    if (axis < 0) return false;
    outer = product(x.shape, axis), count = x.shape[axis], inner = product(x.shape + axis + 1, x.ndim - axis - 1);
    return true;
  }
};

template <class T> void arg_rows(epk_context *ctx, const T *x, int64_t *out, const Along &a, bool greatest, bool last) {
  in_parallel(ctx, a.outer, grain_of(ctx, a.outer, ceil_div(32768, a.count * a.inner)), [&](int64_t begin, int64_t end, int) {
    for (int64_t o = begin; o < end; o++) {
      for (int64_t j = 0; j < a.inner; j++) {
        const T *row = x + o * a.count * a.inner + j;
        int64_t best = 0;
        T value = row[0];
        for (int64_t i = 1; i < a.count; i++) {
          const T next = row[i * a.inner];
          const bool nan_wins = !greatest && next != next && value == value;  // as argmin has it: the first NaN
          if (nan_wins || (greatest ? beats(next, value, true) : value == value && next < value) ||
              (last && !beats(value, next, greatest) && !beats(next, value, greatest))) {
            best = i, value = next;
          }
        }
        out[o * a.inner + j] = best;
      }
    }
  });
}

template <class T> void running(const T *x, T *y, const Along &a, bool exclusive, bool reverse, bool products) {
  typedef typename Sum<T>::type S;
  for (int64_t o = 0; o < a.outer; o++) {
    for (int64_t j = 0; j < a.inner; j++) {
      S sum = products ? 1 : 0;
      for (int64_t i = 0; i < a.count; i++) {
        const int64_t at = (o * a.count + (reverse ? a.count - 1 - i : i)) * a.inner + j;
        const S before = sum, value = S(x[at]);
        sum = products ? sum * value : sum + value;
        y[at] = T(exclusive ? before : sum);
      }
    }
  }
}

template <class T> struct Ranked {
  T value;
  int64_t index;
};

template <class T> bool before(const Ranked<T> &a, const Ranked<T> &b, bool greatest) {
  if (beats(a.value, b.value, greatest)) return true;
  return !beats(b.value, a.value, greatest) && a.index < b.index;
}

// A heap whose root is the one that is last in order.
template <class T> void sink(Ranked<T> *heap, int64_t n, int64_t at, bool greatest) {
  for (;;) {
    int64_t child = 2 * at + 1;
    if (child >= n) return;
    if (child + 1 < n && before(heap[child], heap[child + 1], greatest)) child++;
    if (!before(heap[at], heap[child], greatest)) return;
    const Ranked<T> swap = heap[at];
    heap[at] = heap[child], heap[child] = swap;
    at = child;
  }
}

template <class T> void top_row(const T *x, int64_t stride, int64_t count, int64_t k, bool greatest, Ranked<T> *heap) {
  for (int64_t i = 0; i < k; i++) heap[i] = {x[i * stride], i};
  for (int64_t i = k / 2 - 1; i >= 0; i--) sink(heap, k, i, greatest);
  for (int64_t i = k; i < count; i++) {
    if (!beats(x[i * stride], heap[0].value, greatest)) continue;
    heap[0] = {x[i * stride], i};
    sink(heap, k, 0, greatest);
  }
  for (int64_t n = k - 1; n > 0; n--) {  // the last in order goes to the end
    const Ranked<T> swap = heap[0];
    heap[0] = heap[n], heap[n] = swap;
    sink(heap, n, 0, greatest);
  }
}

template <class T> int top_rows(epk_context *ctx, const T *x, T *values, int64_t *indices, const Along &a, int64_t k, bool greatest) {
  const int threads = ctx->threads;
  auto *heaps = static_cast<Ranked<T> *>(ctx->scratch(ctx, size_t(threads) * size_t(k) * sizeof(Ranked<T>)));
  if (!heaps) return EPK_FAILED;
  const int64_t rows = a.outer * a.inner;
  in_parallel(ctx, rows, grain_of(ctx, rows, ceil_div(8192, a.count)), [&](int64_t begin, int64_t end, int thread) {
    Ranked<T> *heap = heaps + thread * k;
    for (int64_t r = begin; r < end; r++) {
      const int64_t o = r / a.inner, j = r % a.inner;
      top_row(x + o * a.count * a.inner + j, a.inner, a.count, k, greatest, heap);
      for (int64_t i = 0; i < k; i++) {
        const int64_t at = (o * k + i) * a.inner + j;
        if (values) values[at] = heap[i].value;
        if (indices) indices[at] = heap[i].index;
      }
    }
  });
  return EPK_OK;
}

#define EPK_EACH_NUMBER(t, CALL) \
  if (is_f32(t)) { typedef float T; CALL; } \
  else if (is_type(t, kDLFloat, 64)) { typedef double T; CALL; } \
  else if (is_type(t, kDLInt, 32)) { typedef int32_t T; CALL; } \
  else if (is_type(t, kDLInt, 64)) { typedef int64_t T; CALL; } \
  else return EPK_UNSUPPORTED

}  // namespace

// Attributes: axis, keepdims, select_last_index, whether the greatest.
EPK_OPERATOR(arg_extreme) {
  const auto *how = static_cast<const int64_t *>(attributes);
  const DLTensor &x = in[0];
  Along along;
  if (!along.set(x, how[0])) return epk_fail(ctx, EPK_INVALID, "axis %lld is out of range", (long long)how[0]);
  if (along.count == 0) return epk_fail(ctx, EPK_INVALID, "axis %d of %s has no element to choose", along.axis, ShapeText(x).text);
  int64_t dims[MAX_RANK];
  int rank = 0;
  for (int i = 0; i < x.ndim; i++)
    if (i != along.axis || how[1]) dims[rank++] = i == along.axis ? 1 : x.shape[i];
  auto *y = static_cast<int64_t *>(ctx->output(ctx, 0, rank, dims));
  if (!y) return EPK_FAILED;
  if (epk_size(&x) == 0) return EPK_OK;
  EPK_EACH_NUMBER(x, (arg_rows<T>(ctx, (const T *)x.data, y, along, how[3] != 0, how[2] != 0)));
  return EPK_OK;
}

// CumSum and CumProd. Attributes: exclusive, reverse, products. Inputs: x, axis.
EPK_OPERATOR(cum_sum) {
  const auto *how = static_cast<const int64_t *>(attributes);
  const DLTensor &x = in[0];
  int64_t axis;
  Along along;
  if (epk_size(&in[1]) != 1 || read_ints(in[1], &axis) != 1 || !along.set(x, axis)) return epk_fail(ctx, EPK_INVALID, "the axis is out of range for %s", ShapeText(x).text);
  void *y = ctx->output(ctx, 0, x.ndim, x.shape);
  if (!y) return EPK_FAILED;
  EPK_EACH_NUMBER(x, (running<T>((const T *)x.data, (T *)y, along, how[0] != 0, how[1] != 0, how[2] != 0)));
  return EPK_OK;
}

// Attributes: axis, largest. Inputs: x, k. Outputs: values, indices; always in order, the lower index first.
EPK_OPERATOR(top_k) {
  const auto *how = static_cast<const int64_t *>(attributes);
  const DLTensor &x = in[0];
  Along along;
  int64_t k;
  if (!along.set(x, how[0])) return epk_fail(ctx, EPK_INVALID, "axis %lld is out of range", (long long)how[0]);
  if (epk_size(&in[1]) != 1 || read_ints(in[1], &k) != 1 || k < 0 || k > along.count) {
    return epk_fail(ctx, EPK_INVALID, "K must be one number from 0 to the %lld elements of axis %d", (long long)along.count, along.axis);
  }
  int64_t dims[MAX_RANK];
  for (int i = 0; i < x.ndim; i++) dims[i] = i == along.axis ? k : x.shape[i];
  void *values = nullptr;
  int64_t *indices = nullptr;
  if (out[0].ndim >= 0 && !(values = ctx->output(ctx, 0, x.ndim, dims))) return EPK_FAILED;
  if (n_out > 1 && out[1].ndim >= 0 && !(indices = (int64_t *)ctx->output(ctx, 1, x.ndim, dims))) return EPK_FAILED;
  if (k == 0 || epk_size(&x) == 0) return EPK_OK;
  EPK_EACH_NUMBER(x, return (top_rows<T>(ctx, (const T *)x.data, (T *)values, indices, along, k, how[1] != 0)));
  return EPK_OK;
}

}  // namespace EPK_NS
