// LSTM, GRU and RNN of float32 over a whole sequence, with ONNX's meanings and default activations.
#pragma once
#include "simd.h"

#ifndef EPK_RECURRENT
#define EPK_RECURRENT
enum EpkCell { EPK_LSTM, EPK_GRU, EPK_RNN };

// x [steps, batch, inputs]; out [steps, directions, batch, hidden] or null; last, last_cell [directions, batch, hidden]
// or null; initial states as these or null. Directions: 1 or 2; `reverse`: the only one runs backwards.
struct EpkRecurrent {
  int32_t cell;            // EpkCell
  int32_t reverse, directions;
  int32_t reset_first;     // GRU: linear_before_reset is 0
  int64_t steps, batch, inputs, hidden;
  const float *x;
  const float *packed;     // by recurrent_pack_f32
  const float *bias;       // [directions, 2 * gates * hidden] (input, then recurrent), or null
  const float *peephole;   // LSTM: [directions, 3 * hidden] (i, o, f), or null
  const int32_t *lengths;  // steps of each batch item, or null
  const float *initial, *initial_cell;
  float clip;              // of the inputs of activations; 0: none
  int32_t relu;            // RNN: relu instead of tanh
  float *out, *last, *last_cell;
};
#endif

extern "C" {
int64_t EPK(recurrent_packed_size_f32)(int cell, int64_t directions, int64_t inputs, int64_t hidden);
// w [directions, gates * hidden, inputs], r [directions, gates * hidden, hidden]
void EPK(recurrent_pack_f32)(int cell, int64_t directions, int64_t inputs, int64_t hidden, const float *w,
                             const float *r, float *packed, Parallel *p);
int64_t EPK(recurrent_scratch_f32)(const EpkRecurrent *c, int threads);
void EPK(recurrent_f32)(const EpkRecurrent *c, void *scratch, Parallel *p);
}
