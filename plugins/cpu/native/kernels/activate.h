// Activations on vectors, and the epilogue of a finished tile.
#pragma once
#include "epilogue.h"
#include "vmath.h"

namespace EPK_NS {

EPK_INLINE bool is_cheap(int activation) { return activation <= EPK_CLIP; }

// The cheap activations are a clip: these are its bounds. NaN passes both.
EPK_INLINE void clip_bounds(const EpkEpilogue &e, float &low, float &high) {
  low = e.activation == EPK_RELU ? 0.0f : e.activation == EPK_CLIP ? e.alpha : -__builtin_inff();
  high = e.activation == EPK_CLIP ? e.beta : __builtin_inff();
}

EPK_INLINE vf activate(vf x, const EpkEpilogue &e) {
  switch (e.activation) {
    case EPK_RELU: return vmax(vf{}, x);
    case EPK_CLIP: return vmin(splat(e.beta), vmax(splat(e.alpha), x));
    case EPK_LEAKY_RELU: return select((vi)(x < 0.0f), x * e.alpha, x);
    case EPK_ACT_SIGMOID: return vsigmoid(x);
    case EPK_ACT_TANH: return vtanh(x);
    case EPK_ACT_SILU: return vsilu(x);
    case EPK_ACT_GELU: return vgelu(x);
    case EPK_ACT_GELU_TANH: return vgelu_tanh(x);
    case EPK_HARD_SIGMOID: return vmin(splat(1.0f), vmax(vf{}, x * e.alpha + e.beta));
    case EPK_HARD_SWISH: return x * vmin(splat(1.0f), vmax(vf{}, x * (1.0f / 6.0f) + 0.5f));
    default: return x;
  }
}

// In place, `rows` by `vectors` vectors that lie `row` and `vector` elements apart (activate.cpp).
void activate_all(const EpkEpilogue &e, float *x, int64_t rows, int64_t row, int64_t vectors, int64_t vector);

// The epilogue of columns [column, column + n) of one row, from x (the products) to out.
inline void finish_row(const EpkEpilogue &e, const float *x, float *out, int64_t row, int64_t column, int64_t n) {
  const float *add = e.add ? e.add + row * e.add_row + column : nullptr;
  const float *bias = e.bias ? e.bias + column : nullptr;
  const float row_bias = e.row_bias ? e.row_bias[row] : 0.0f;
  const int64_t whole = is_cheap(e.activation) ? 0 : n / VL;
  for (int64_t i = 0; i < n; i += VL) {
    const int64_t lanes = min_of<int64_t>(VL, n - i);
    vf value = load_n(x + i, lanes) * e.scale + row_bias;
    if (bias) value += load_n(bias + i, lanes);
    if (add) value += load_n(add + i, lanes);
    store_n(out + i, i < whole * VL ? value : activate(value, e), lanes);
  }
  if (whole) activate_all(e, out, 1, 0, whole, VL);
}

}  // namespace EPK_NS
