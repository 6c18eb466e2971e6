// Products with weights of 4 or 8 bits in blocks along the reduction, each with a scale and a zero point
// (MatMulNBits): out [m, n] = A [m, k] @ dequantised(B), B as the operator stores it.
#pragma once
#include "epilogue.h"
#include "simd.h"

#ifndef EPK_NBITS
#define EPK_NBITS
struct EpkNBits {
  int64_t m, n, k, bits, block;  // bits 4 or 8; block: weights that share a scale, 16 to 256
  const float *a;                // contiguous
  const uint8_t *b;              // [n][ceil(k / block)][block * bits / 8]; the low half of a byte is the earlier weight
  const float *scales;           // [n][ceil(k / block)]
  const uint8_t *zeros;          // [n][ceil(ceil(k / block) * bits / 8)], packed as b; null: 2^(bits - 1)
  float *out;                    // contiguous
  EpkEpilogue epilogue;
};
#endif

extern "C" {
int64_t EPK(nbits_scratch)(const EpkNBits *g, int threads);
void EPK(nbits)(const EpkNBits *g, void *scratch, Parallel *p);
}
