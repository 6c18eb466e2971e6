#include "copy.h"

namespace EPK_NS {
namespace {

constexpr int64_t LEAST_BYTES = 1 << 16;  // for a thread

struct Shape {
  int rank = 0;
  int64_t dims[MAX_RANK], strides[MAX_RANK];

  // Dimensions of one element left out, neighbours merged where memory allows it.
  Shape(int n, const int64_t *d, const int64_t *s) {
    for (int i = 0; i < n; i++) {
      if (d[i] == 1) continue;
      if (rank > 0 && strides[rank - 1] == s[i] * d[i]) {
        dims[rank - 1] *= d[i];
        strides[rank - 1] = s[i];
      } else {
        dims[rank] = d[i];
        strides[rank++] = s[i];
      }
    }
  }
};

template <class T> void row(const T *from, T *to, int64_t n, int64_t stride) {
  if (stride == 1) {
    memcpy(to, from, size_t(n) * sizeof(T));
  } else if (stride == 0) {
    const T value = *from;
    for (int64_t i = 0; i < n; i++) to[i] = value;
  } else {
    for (int64_t i = 0; i < n; i++) to[i] = from[i * stride];
  }
}

// to[i * to_pitch + j] = from[i + j * from_pitch], in blocks that stay in the cache.
template <class T>
void flip(const T *from, int64_t from_pitch, T *to, int64_t to_pitch, int64_t rows, int64_t columns) {
  constexpr int64_t B = 16;
  for (int64_t i0 = 0; i0 < rows; i0 += B) {
    const int64_t i1 = min_of(i0 + B, rows);
    for (int64_t j0 = 0; j0 < columns; j0 += B) {
      const int64_t j1 = min_of(j0 + B, columns);
      if (i1 - i0 == B && j1 - j0 == B) {
        T block[B][B];
        for (int64_t j = 0; j < B; j++)
          for (int64_t i = 0; i < B; i++) block[i][j] = from[i0 + i + (j0 + j) * from_pitch];
        for (int64_t i = 0; i < B; i++) memcpy(to + (i0 + i) * to_pitch + j0, block[i], sizeof block[i]);
      } else {
        for (int64_t i = i0; i < i1; i++)
          for (int64_t j = j0; j < j1; j++) to[i * to_pitch + j] = from[i + j * from_pitch];
      }
    }
  }
}

template <class T> void copy(epk_context *ctx, const T *from, T *to, const Shape &s) {
  if (s.rank == 0) {
    *to = *from;
    return;
  }
  const int last = s.rank - 1;
  const int64_t inner = s.dims[last], stride = s.strides[last];
  int64_t pitches[MAX_RANK], pitch = 1;  // of `to`
  for (int i = last; i >= 0; i--) pitches[i] = pitch, pitch *= s.dims[i];
  const int64_t total = pitch;
  int turned = -1;  // the dimension that lies along memory in `from`, where that is not the last
  for (int i = 0; i < last; i++)
    if (s.strides[i] == 1 && stride != 1 && stride != 0) turned = i;
  if (s.rank == 1 && stride == 1) {
    const int64_t grain = grain_of(ctx, total, LEAST_BYTES / int64_t(sizeof(T)));
    in_parallel(ctx, total, grain, [&](int64_t begin, int64_t end, int) {
      memcpy(to + begin, from + begin, size_t(end - begin) * sizeof(T));
    });
    return;
  }
  // Outer items: all dimensions but the last, and but blocks of the turned one.
  constexpr int64_t BAND = 64;
  int64_t outer_dims[MAX_RANK], count = 1;
  for (int i = 0; i < last; i++) {
    outer_dims[i] = i == turned ? ceil_div(s.dims[i], BAND) : s.dims[i];
    count *= outer_dims[i];
  }
  const int64_t item_bytes = max_of<int64_t>(total / count * int64_t(sizeof(T)), 1);
  const int64_t grain = grain_of(ctx, count, ceil_div(LEAST_BYTES, item_bytes));
  in_parallel(ctx, count, grain, [&](int64_t begin, int64_t end, int) {
    int64_t at[MAX_RANK] = {}, rest = begin;
    for (int i = last - 1; i >= 0; i--) at[i] = rest % outer_dims[i], rest /= outer_dims[i];
    for (int64_t item = begin; item < end; item++) {
      int64_t source = 0, target = 0;
      for (int i = 0; i < last; i++) {
        const int64_t index = i == turned ? at[i] * BAND : at[i];
        source += index * s.strides[i];
        target += index * pitches[i];
      }
      if (turned < 0) {
        row(from + source, to + target, inner, stride);
      } else {
        const int64_t rows = min_of(BAND, s.dims[turned] - at[turned] * BAND);
        flip(from + source, stride, to + target, pitches[turned], rows, inner);
      }
      for (int i = last - 1; i >= 0 && ++at[i] == outer_dims[i]; i--) at[i] = 0;
    }
  });
}

struct Wide {
  uint64_t low, high;
};

}  // namespace

void strided_copy(epk_context *ctx, const char *from, char *to, int rank, const int64_t *dims, const int64_t *strides,
                  int64_t width) {
  for (int i = 0; i < rank; i++)
    if (dims[i] == 0) return;
  const Shape shape(rank, dims, strides);
  switch (width) {
    case 1: return copy(ctx, (const uint8_t *)from, (uint8_t *)to, shape);
    case 2: return copy(ctx, (const uint16_t *)from, (uint16_t *)to, shape);
    case 4: return copy(ctx, (const uint32_t *)from, (uint32_t *)to, shape);
    case 8: return copy(ctx, (const uint64_t *)from, (uint64_t *)to, shape);
    default: return copy(ctx, (const Wide *)from, (Wide *)to, shape);
  }
}

void copy_rows(epk_context *ctx, const char *from, int64_t from_pitch, char *to, int64_t to_pitch, int64_t rows,
               int64_t bytes) {
  if (bytes == 0 || rows == 0) return;
  if (rows == 1 || (from_pitch == bytes && to_pitch == bytes)) {
    const int64_t total = rows * bytes;
    in_parallel(ctx, total, grain_of(ctx, total, 4 * LEAST_BYTES), [&](int64_t begin, int64_t end, int) {
      memcpy(to + begin, from + begin, size_t(end - begin));
    });
    return;
  }
  in_parallel(ctx, rows, grain_of(ctx, rows, ceil_div(4 * LEAST_BYTES, bytes)), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; r++) memcpy(to + r * to_pitch, from + r * from_pitch, size_t(bytes));
  });
}

void fill_with(epk_context *ctx, char *to, int64_t count, const char *element, int64_t width) {
  in_parallel(ctx, count, grain_of(ctx, count, 4 * LEAST_BYTES / width), [&](int64_t begin, int64_t end, int) {
    if (width == 4) {
      const uint32_t value = load_as<uint32_t>(element);
      for (int64_t i = begin; i < end; i++) ((uint32_t *)to)[i] = value;
    } else {
      for (int64_t i = begin; i < end; i++) memcpy(to + i * width, element, size_t(width));
    }
  });
}

}  // namespace EPK_NS
