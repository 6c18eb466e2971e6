// What all operators share: threads, checked shapes, element types. Compiled once per instruction set; like the math
// kernels, all code lives in that set's namespace and no templates of std:: are used.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "../kernels/simd.h"
#include "epkit_kernel.h"

#define EPK_ARGUMENTS \
  epk_context *ctx, const void *attributes, const DLTensor *in, int n_in, DLTensor *out, int n_out
// An operator's kernel. The table (table.cpp) lists them all.
#define EPK_OPERATOR(name) int name([[maybe_unused]] epk_context *ctx, [[maybe_unused]] const void *attributes, \
  [[maybe_unused]] const DLTensor *in, [[maybe_unused]] int n_in, [[maybe_unused]] DLTensor *out, \
  [[maybe_unused]] int n_out)

namespace EPK_NS {

constexpr int MAX_RANK = EPK_MAX_RANK;

// The kernel's threads as the math kernels want them.
struct Threads : Parallel {
  epk_context *ctx;
  explicit Threads(epk_context *c) : ctx(c) {
    threads = c->threads;
    run = [](Parallel *self, int64_t count, int64_t grain, void (*body)(void *, int64_t, int64_t, int), void *arg) {
      epk_context *ctx = static_cast<Threads *>(self)->ctx;
      ctx->parallel(ctx, count, grain, body, arg);
    };
  }
};

// f(begin, end, thread) over [0, count) in pieces of `grain`.
template <class F> void in_parallel(epk_context *ctx, int64_t count, int64_t grain, const F &f) {
  if (count <= 0) return;
  if (count <= grain || ctx->threads == 1) return f(0, count, 0);
  ctx->parallel(ctx, count, grain, [](void *arg, int64_t begin, int64_t end, int thread) {
    (*static_cast<const F *>(arg))(begin, end, thread);
  }, const_cast<F *>(&f));
}

// A grain that gives each thread a few pieces, none with less than `least` items.
inline int64_t grain_of(epk_context *ctx, int64_t count, int64_t least) {
  int64_t grain = count / (int64_t(ctx->threads) * 4) + 1;
  return grain < least ? least : grain;
}

inline bool same_type(DLDataType a, DLDataType b) { return a.code == b.code && a.bits == b.bits; }
inline bool is_type(const DLTensor &t, int code, int bits) { return t.dtype.code == code && t.dtype.bits == bits; }
inline bool is_f32(const DLTensor &t) { return is_type(t, kDLFloat, 32); }
inline int64_t width_of(const DLTensor &t) { return t.dtype.bits / 8; }
inline bool absent(const DLTensor &t) { return t.ndim < 0; }

inline int64_t product(const int64_t *dims, int n) {
  int64_t p = 1;
  for (int i = 0; i < n; i++) p *= dims[i];
  return p;
}

// The product, or -1 if it overflows or an operand is negative.
inline int64_t checked_mul(int64_t a, int64_t b) {
  int64_t c;
  return a < 0 || b < 0 || __builtin_mul_overflow(a, b, &c) ? -1 : c;
}

// An axis counted from the front; -1 if it is out of range.
inline int normal_axis(int64_t axis, int rank) {
  if (axis < 0) axis += rank;
  return axis < 0 || axis >= rank ? -1 : int(axis);
}

// Integers of an int32 or int64 tensor of at most MAX_RANK elements; -1 if it is neither.
inline int read_ints(const DLTensor &t, int64_t *numbers) {
  int64_t n = epk_size(&t);
  if (n > MAX_RANK || t.dtype.code != kDLInt || (t.dtype.bits != 64 && t.dtype.bits != 32)) return -1;
  for (int64_t i = 0; i < n; i++) {
    numbers[i] = t.dtype.bits == 64 ? static_cast<int64_t *>(t.data)[i] : static_cast<int32_t *>(t.data)[i];
  }
  return int(n);
}

// The shape of two broadcast shapes: right-aligned, 1 gives way. Rank of the result, or -1.
inline int broadcast(const int64_t *a, int rank_a, const int64_t *b, int rank_b, int64_t *result) {
  int rank = rank_a > rank_b ? rank_a : rank_b;
  for (int i = rank - 1, ia = rank_a - 1, ib = rank_b - 1; i >= 0; i--, ia--, ib--) {
    int64_t x = ia >= 0 ? a[ia] : 1, y = ib >= 0 ? b[ib] : 1;
    if (x != y && x != 1 && y != 1) return -1;
    result[i] = x == 1 ? y : x;
  }
  return rank;
}

// Text of a shape for messages.
struct ShapeText {
  char text[160];
  explicit ShapeText(const DLTensor &t) {
    size_t used = 0;
    text[used++] = '[';
    for (int i = 0; i < t.ndim && used < 130; i++) {
      char digits[24];
      int n = 0;
      uint64_t value = uint64_t(t.shape[i]);
      do digits[n++] = char('0' + value % 10); while ((value /= 10) != 0);
      if (i) { text[used++] = ','; text[used++] = ' '; }
      while (n > 0) text[used++] = digits[--n];
    }
    text[used++] = ']';
    text[used] = 0;
  }
};

}  // namespace EPK_NS
