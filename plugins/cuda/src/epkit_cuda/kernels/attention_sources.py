"""CUDA C++ of attention: a block for each query, or several that share its keys; the softmax between two products."""

from __future__ import annotations

from typing import Any

from ..source import PRELUDE, stored

THREADS = 256
CHUNK = 1024
"""Keys whose scores a block keeps at once."""

AT_ONCE = 4
"""Keys that a lane has under way: the wait for the first is that for all."""

WIDEST = THREADS
"""Elements of a head at most: with one a lane, a block sees a value at once."""

MASKS = {
    "": "",
    "seen": "score = j < reach && mask[at + j * mask_j] ? score : -INFINITY;",
    "added": "score = j < reach ? score + (float)widen(mask[at + j * mask_j]) : -INFINITY;",
}
"""What is done to the score of key j, by kind of mask; bools are bytes."""

PARAMETERS = "int reach, long long mask_b, long long mask_h, long long mask_i, long long mask_j"


def _beginning(dtype: Any, kind: str) -> str:
    masked = "bool" if kind == "seen" else "T"
    return f"{PRELUDE}\ntypedef {stored(dtype)} T; typedef {masked} M;\n"


WHOLE = (
    "const int low = 0, high = seen;",
    "T* mine_out = y + b * y_b + head * y_h + i * y_i;",
    "narrow(sum == 0 ? 0.0f : found / sum, mine_out[c]);",
)
SHARED = (
    "const int low = blockIdx.x % blocks * per, high = low + per < seen ? low + per : seen;",
    """float* mine_out = partial + (long long)blockIdx.x * (width + 2);
  if (threadIdx.x == 0) { mine_out[width] = top; mine_out[width + 1] = sum; }""",
    "mine_out[c] = found;",
)
"""Which keys are a block's; where its result belongs; and what that is."""


def few_source(dtype: Any, kind: str, pack: int, *, shared: bool = False) -> str:
    """One query a block: scores of a chunk of keys in shared memory, their softmax, their part of the values.

    Source of the running maximum and sum: Milakov and Gimelshein, "Online normalizer calculation for softmax"
    (2018).

    Args:
        dtype: of queries, keys and values.
        kind: one of ``MASKS``.
        pack: elements that a lane reads at once.
        shared: as many ``blocks`` have ``per`` keys of a query each; ``partial`` gets what ``joined_source`` joins.
    """
    keys, begin, end = SHARED if shared else WHOLE
    parameters = ", int blocks, int per, float* __restrict__ partial" if shared else ""
    return f"""{_beginning(dtype, kind)}
struct alignas({pack} * sizeof(T)) Pack {{ T v[{pack}]; }};
extern "C" __global__ void few(int heads, int each, int queries, int keys, int size, int width, int offset,
    float scale, float softcap, long long q_b, long long q_h, long long q_i, long long k_b, long long k_h,
    long long k_i, long long v_b, long long v_h, long long v_i, long long y_b, long long y_h, long long y_i,
    {PARAMETERS}, const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v,
    const M* __restrict__ mask, T* __restrict__ y{parameters}) {{
  __shared__ float scores[{CHUNK}], values[{THREADS} * {pack}];
  const int job = blockIdx.x{" / blocks" if shared else ""};
  const int i = job % queries, head = job / queries % heads, b = job / queries / heads;
  const long long at = b * mask_b + head * mask_h + i * mask_i;
  const T* mine = q + b * q_b + head * q_h + i * q_i;
  k += b * k_b + head / each * k_h;
  v += b * v_b + head / each * v_h;
  const int seen = i + offset < keys - 1 ? i + offset + 1 : keys;
  {keys}
  const int packs = size / {pack}, columns = width / {pack};
  int lanes = 1, across = 1;
  while (lanes < packs && lanes < 32) lanes *= 2;
  while (across < columns) across *= 2;
  const int team = threadIdx.x / lanes, teams = {THREADS} / lanes;
  const int lane = threadIdx.x % lanes, column = threadIdx.x % across, parts = {THREADS} / across;
  float top = -INFINITY, sum = 0, kept[{pack}] = {{}};
  for (int base = low; base < high; base += {CHUNK}) {{
    const int count = high - base < {CHUNK} ? high - base : {CHUNK};
    float best = -INFINITY;
    for (int first = 0; first < count; first += {AT_ONCE} * teams) {{
      float found[{AT_ONCE}] = {{}};
      for (int c = lane; c < packs; c += lanes) {{
        const Pack x = ((const Pack*)mine)[c];
        Pack z[{AT_ONCE}];
        for (int u = 0; u < {AT_ONCE}; u++) {{
          const int own = first + u * teams + team, j = base + (own < count ? own : count - 1);
          z[u] = ((const Pack*)(k + j * k_i))[c];
        }}
        for (int u = 0; u < {AT_ONCE}; u++)
          for (int e = 0; e < {pack}; e++) found[u] += (float)widen(x.v[e]) * (float)widen(z[u].v[e]);
      }}
      for (int u = 0; u < {AT_ONCE}; u++) {{
        float score = found[u];
        for (int step = 16; step; step >>= 1) {{
          const float other = __shfl_xor_sync(0xffffffffu, score, step);
          if (step < lanes) score += other;
        }}
        const int own = first + u * teams + team, j = base + own;
        if (own < count) {{
          score *= scale;
          if (softcap != 0) score = softcap * tanh(score / softcap);
          {MASKS[kind]}
          best = Top()(best, score);
          if (lane == 0) scores[own] = score;
        }}
      }}
    }}
    const float higher = Top()(top, over_block(Top(), best));
    const float base_of = higher == -INFINITY ? 0 : higher, fade = top == -INFINITY ? 0 : exp(top - base_of);
    float part = 0;
    for (int own = threadIdx.x; own < count; own += {THREADS}) part += scores[own] = exp(scores[own] - base_of);
    sum = sum * fade + over_block(Sum(), part);
    __syncthreads();
    for (int e = 0; e < {pack}; e++) kept[e] *= fade;
    const int until = column < columns ? count : 0;
    #pragma unroll {AT_ONCE}
    for (int own = threadIdx.x / across; own < until; own += parts) {{
      const Pack z = ((const Pack*)(v + (long long)(base + own) * v_i))[column];
      for (int e = 0; e < {pack}; e++) kept[e] += scores[own] * (float)widen(z.v[e]);
    }}
    top = higher;
    __syncthreads();
  }}
  for (int e = 0; e < {pack}; e++) values[threadIdx.x * {pack} + e] = kept[e];
  __syncthreads();
  {begin}
  for (int c = threadIdx.x; c < width; c += {THREADS}) {{
    float found = 0;
    for (int part = 0; part < parts; part++) found += values[(part * across + c / {pack}) * {pack} + c % {pack}];
    {end}
  }}
}}
"""


def joined_source(dtype: Any) -> str:
    """What ``parts`` blocks found of a query, by their maxima and sums; always in one order.

    Source: Dao et al., "Flash-Decoding for long-context inference" (2023).
    """
    return f"""{_beginning(dtype, "")}
extern "C" __global__ void joined(int heads, int queries, int width, int parts, long long y_b, long long y_h,
    long long y_i, const float* __restrict__ partial, T* __restrict__ y) {{
  const int job = blockIdx.x, i = job % queries, head = job / queries % heads, b = job / queries / heads;
  const float* mine = partial + (long long)job * parts * (width + 2);
  T* out = y + b * y_b + head * y_h + i * y_i;
  float top = -INFINITY, sum = 0;
  for (int part = 0; part < parts; part++) top = Top()(top, mine[part * (width + 2) + width]);
  if (top == -INFINITY) top = 0;
  for (int part = 0; part < parts; part++) {{
    const float* p = mine + part * (width + 2) + width;
    sum += p[1] * exp(p[0] - top);
  }}
  for (int c = threadIdx.x; c < width; c += blockDim.x) {{
    float found = 0;
    for (int part = 0; part < parts; part++) {{
      const float* p = mine + part * (width + 2);
      found += p[c] * exp(p[width] - top);
    }}
    narrow(sum == 0 ? 0.0f : found / sum, out[c]);
  }}
}}
"""


def softmax_source(dtype: Any, kind: str) -> str:
    """shares[row] = softmax(scale scores[row] + mask), rows by batch, head and query."""
    visible = f"""
    float score = p[row * keys + j] * scale;
    if (softcap != 0) score = softcap * tanh(score / softcap);
    {MASKS[kind]}"""
    return f"""{_beginning(dtype, kind)}
extern "C" __global__ void shares(int heads, int queries, int keys, int offset, float scale, float softcap,
    {PARAMETERS}, const float* p, const M* __restrict__ mask, T* q) {{
  const long long row = blockIdx.x;
  const int i = row % queries, head = row / queries % heads, b = row / queries / heads;
  const long long at = b * mask_b + head * mask_h + i * mask_i;
  const int seen = i + offset < keys - 1 ? i + offset + 1 : keys;
  float top = -INFINITY, sum = 0;
  for (int j = threadIdx.x; j < seen; j += blockDim.x) {{{visible}
    top = Top()(top, score);
  }}
  top = over_block(Top(), top);
  if (top == -INFINITY) top = 0;
  for (int j = threadIdx.x; j < seen; j += blockDim.x) {{{visible}
    sum += exp(score - top);
  }}
  sum = over_block(Sum(), sum);
  for (int j = threadIdx.x; j < keys; j += blockDim.x) {{
    float share = 0;
    if (j < seen && sum != 0) {{{visible}
      share = exp(score - top) / sum;
    }}
    narrow(share, q[row * keys + j]);
  }}
}}
"""
