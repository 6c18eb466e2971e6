// The most multiply-adds that this instruction set does: what the microbenchmark's shares are shares of.
#include "simd.h"

using namespace EPK_NS;

// Runs `rounds` rounds and returns the floating-point operations done.
extern "C" int64_t EPK(peak_f32)(int64_t rounds, float *sink) {
  constexpr int CHAINS = 12;
  vf acc[CHAINS];
  const vf factor = load_n(sink, 1), term = load_n(sink + 1, 1);
#pragma GCC unroll 12
  for (int i = 0; i < CHAINS; i++) acc[i] = splat((float)i);
  for (int64_t r = 0; r < rounds; r++)
#pragma GCC unroll 12
    for (int i = 0; i < CHAINS; i++) acc[i] = fma_of(acc[i], factor, term);
  vf total{};
#pragma GCC unroll 12
  for (int i = 0; i < CHAINS; i++) total += acc[i];
  *sink = sum_of(total);
  return rounds * CHAINS * VL * 2;
}
