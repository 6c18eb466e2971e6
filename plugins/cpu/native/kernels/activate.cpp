#include "activate.h"

namespace EPK_NS {
namespace {

// The switch is outside of the loop, so that one vector's latency hides behind the others.
template <int ACTIVATION> void all(EpkEpilogue e, float *x, int64_t rows, int64_t row, int64_t vectors, int64_t vector) {
  e.activation = ACTIVATION;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t v = 0; v < vectors; v++) {
      float *at = x + r * row + v * vector;
      store(at, activate(load(at), e));
    }
}

}  // namespace

void activate_all(const EpkEpilogue &e, float *x, int64_t rows, int64_t row, int64_t vectors, int64_t vector) {
  switch (e.activation) {
#define EPK_CASE(kind) case kind: return all<kind>(e, x, rows, row, vectors, vector);
    EPK_CASE(EPK_RELU) EPK_CASE(EPK_CLIP) EPK_CASE(EPK_LEAKY_RELU) EPK_CASE(EPK_ACT_SIGMOID) EPK_CASE(EPK_ACT_TANH)
    EPK_CASE(EPK_ACT_SILU) EPK_CASE(EPK_ACT_GELU) EPK_CASE(EPK_ACT_GELU_TANH) EPK_CASE(EPK_HARD_SIGMOID)
    EPK_CASE(EPK_HARD_SWISH)
#undef EPK_CASE
  }
}

}  // namespace EPK_NS
