// Scaled dot-product attention of float32, a block of scores at a time: the score matrix is never whole in memory.
#pragma once
#include "simd.h"

#ifndef EPK_ATTENTION
#define EPK_ATTENTION
// Strides are in elements; the last axis of every tensor is contiguous. heads is a multiple of kv_heads; query head h
// reads key head h / (heads / kv_heads).
struct EpkAttention {
  int64_t batch, heads, kv_heads, queries, keys, size, value_size;
  const float *q, *k, *v;
  float *out;
  int64_t q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, out_batch, out_head, out_row;
  float scale;             // of the scores
  float softcap;           // scores become softcap * tanh(score / softcap); 0: they do not
  // Query i stands at the key i + past, and sees those from `left` before it to `right` after it; negative: all.
  int64_t left, right, past;
  const int64_t *pasts;    // of each batch item, in the place of `past`, or null
  const float *mask;       // added to the scores (after softcap), or null
  const uint8_t *allowed;  // nonzero where a query may see a key, or null; strides as of the mask
  int64_t mask_batch, mask_head, mask_row;  // 0 where broadcast; the last axis has stride 1
  const int64_t *lengths;  // keys of each batch item, or null: all
  const float *sink;       // a score of each head that takes weight and has no value, or null
};
#endif

extern "C" {
int64_t EPK(attention_scratch_f32)(const EpkAttention *a, int threads);
// A query that may see no key gets zeros.
void EPK(attention_f32)(const EpkAttention *a, void *scratch, Parallel *p);
// Rotary position embedding of [rows, heads, size] by strides: pairs are (i, i + half), or neighbours where
// `interleaved`, i < half. cosine and sine have `half` elements at positions[row] * half (row * half if null). The
// elements from 2 * half to size are copied.
void EPK(rotary_f32)(const float *x, float *out, const float *cosine, const float *sine, const int64_t *positions,
                     int64_t rows, int64_t heads, int64_t size, int64_t half, int64_t row, int64_t head,
                     int64_t out_row, int64_t out_head, int interleaved, Parallel *p);
}
