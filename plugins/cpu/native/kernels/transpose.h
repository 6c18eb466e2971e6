// Transposing a square of VL x VL lanes in registers, and the packing of panels with it.
#pragma once
#include "simd.h"

namespace EPK_NS {

template <int...> struct Lanes {};
template <int N, int... L> struct MakeLanes : MakeLanes<N - 1, N - 1, L...> {};
template <int... L> struct MakeLanes<0, L...> {
  typedef Lanes<L...> type;
};

template <int S, int... L> EPK_INLINE void exchange(vf &a, vf &b, Lanes<L...>) {
  vf low = __builtin_shufflevector(a, b, ((L & S) ? VL + L - S : L)...);
  vf high = __builtin_shufflevector(a, b, ((L & S) ? VL + L : L + S)...);
  a = low;
  b = high;
}

template <int S> EPK_INLINE void exchange_all(vf (&rows)[VL]) {
#pragma GCC unroll 16
  for (int i = 0; i < VL; i++)
    if (!(i & S)) exchange<S>(rows[i], rows[i + S], typename MakeLanes<VL>::type());
}

EPK_INLINE void transpose(vf (&rows)[VL]) {
  exchange_all<1>(rows);
  exchange_all<2>(rows);
  if constexpr (VL >= 8) exchange_all<VL >= 8 ? 4 : 1>(rows);
  if constexpr (VL >= 16) exchange_all<VL >= 16 ? 8 : 1>(rows);
}

// out[c * out_row + r] = x[r * x_row + c] for r < rows, c < columns.
inline void transpose_matrix(const float *x, int64_t x_row, int64_t rows, int64_t columns, float *out,
                             int64_t out_row) {
  for (int64_t r = 0; r < rows; r += VL)
    for (int64_t c = 0; c < columns; c += VL) {
      const int64_t height = min_of<int64_t>(VL, rows - r), width = min_of<int64_t>(VL, columns - c);
      vf square[VL];
#pragma GCC unroll 16
      for (int i = 0; i < VL; i++) {
        if (i >= height) square[i] = vf{};
        else square[i] = width == VL ? load(x + (r + i) * x_row + c) : load_n(x + (r + i) * x_row + c, width);
      }
      transpose(square);
#pragma GCC unroll 16
      for (int i = 0; i < VL; i++) {
        if (i >= width) break;
        if (height == VL) store(out + (c + i) * out_row + r, square[i]);
        else store_n(out + (c + i) * out_row + r, square[i], height);
      }
    }
}

// `steps` rows of a panel from columns [0, columns) of b, columns <= PANEL; the rest of the panel is zero.
inline void pack_panel(const float *b, int64_t b_row, int64_t b_column, int64_t steps, int64_t columns,
                       float *panel) {
  constexpr int64_t WIDTH = 2 * VL;
  if (columns < WIDTH) memset(panel, 0, (size_t)(steps * WIDTH) * 4);
  if (b_column == 1) {
    for (int64_t k = 0; k < steps; k++) {
      if (columns == WIDTH) {
        store(panel + k * WIDTH, load(b + k * b_row));
        store(panel + k * WIDTH + VL, load(b + k * b_row + VL));
      } else {
        memcpy(panel + k * WIDTH, b + k * b_row, (size_t)columns * 4);
      }
    }
  } else if (b_row == 1) {
    transpose_matrix(b, b_column, columns, steps, panel, WIDTH);
  } else {
    for (int64_t k = 0; k < steps; k++)
      for (int64_t j = 0; j < columns; j++) panel[k * WIDTH + j] = b[k * b_row + j * b_column];
  }
}

}  // namespace EPK_NS
