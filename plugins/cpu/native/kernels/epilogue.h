// What is done to a product before it is stored: out = activation(scale * product + bias + row_bias + add).
#pragma once
#include <cstdint>

enum EpkActivation {
  EPK_NONE,
  EPK_RELU,
  EPK_CLIP,         // to [alpha, beta]
  EPK_LEAKY_RELU,   // slope alpha
  EPK_ACT_SIGMOID,
  EPK_ACT_TANH,
  EPK_ACT_SILU,
  EPK_ACT_GELU,       // with erf
  EPK_ACT_GELU_TANH,  // its approximation with tanh
  EPK_HARD_SIGMOID,   // clip(alpha x + beta, 0, 1)
  EPK_HARD_SWISH      // x clip(x / 6 + 1/2, 0, 1)
};

struct EpkEpilogue {
  float scale;            // of the product; 1 where there is none
  int32_t activation;     // EpkActivation
  float alpha, beta;      // of the activation
  const float *bias;      // one per column (output channel), or null
  const float *row_bias;  // one per row, or null
  const float *add;       // a matrix in the layout of the output (a residual), or null
  int64_t add_row;        // its row stride in elements; 0 repeats one row
};
