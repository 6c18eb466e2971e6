"""Attention: one block for each query of each head, scores and sums in float32, softmax as the keys go by."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from epkit.backend import Kernel, RunContext, kernel
from epkit.kernels.attributes import attribute_values

from ..launch import dense, launch
from ..memory import Tensor
from ..source import PRELUDE, stored
from .rows import output

WARPS = 8
WIDEST = 256
"""Elements of a head at most: a lane keeps eight of them."""


def attention_source(c_type: str) -> str:
    """y[b, h, i] = softmax over j of (scale q[b, h, i] . k[b, h / each, j]) v[b, h / each, j].

    Each warp takes every WARPS-th key and keeps its own maximum, sum and weighted values; they are joined last.
    """
    return f"""{PRELUDE}
typedef {c_type} T;
extern "C" __global__ void attention(int heads, int each, int queries, int keys, int size, int width, int causal,
    float scale, const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v, T* __restrict__ y) {{
  __shared__ float tops[{WARPS}], sums[{WARPS}], values[{WARPS}][{WIDEST}];
  const int warp = threadIdx.x / 32, lane = threadIdx.x & 31;
  const long long row = blockIdx.x, head = row / queries;
  const int i = (int)(row % queries);
  const long long group = head / heads * (heads / each) + head % heads / each;
  const T* mine = q + row * size;
  const int seen = causal && i + 1 < keys ? i + 1 : keys;
  float top = -INFINITY, sum = 0, kept[{WIDEST // 32}] = {{}};
  for (int base = 0; base < seen; base += {WARPS}) {{
    const int j = base + warp;
    const T* key = k + (group * keys + (j < seen ? j : 0)) * size;
    float dot = 0;
    for (int c = lane; c < size; c += 32) dot += widen(mine[c]) * widen(key[c]);
    for (int step = 16; step; step >>= 1) dot += __shfl_xor_sync(0xffffffffu, dot, step);
    if (j >= seen) continue;
    const float score = dot * scale, higher = Top()(score, top);
    const float fade = top == -INFINITY ? 0 : exp(top - higher), weight = exp(score - higher);
    const T* value = v + (group * keys + j) * width;
    for (int part = 0; part < {WIDEST // 32}; part++)
      if (part * 32 + lane < width) kept[part] = kept[part] * fade + weight * widen(value[part * 32 + lane]);
    sum = sum * fade + weight;
    top = higher;
  }}
  if (lane == 0) {{ tops[warp] = top; sums[warp] = sum; }}
  for (int part = 0; part < {WIDEST // 32}; part++) values[warp][part * 32 + lane] = kept[part];
  __syncthreads();
  float best = tops[0], total = 0;
  for (int other = 1; other < {WARPS}; other++) best = Top()(best, tops[other]);
  for (int other = 0; other < {WARPS}; other++)
    if (tops[other] != -INFINITY) total += sums[other] * exp(tops[other] - best);
  for (int c = threadIdx.x; c < width; c += blockDim.x) {{
    float found = 0;
    for (int other = 0; other < {WARPS}; other++)
      if (tops[other] != -INFINITY) found += values[other][c] * exp(tops[other] - best);
    narrow(found / total, y[row * width + c]);
  }}
}}
"""


def plain_attention(node: Any) -> bool | str:
    """Four axes; no mask, no cache, no second result."""
    attributes = attribute_values(node)
    more = [value for value in (*node.inputs[3:], *node.outputs[1:]) if value is not None and value.name]
    if more:
        return f"{more[0].name}: the kernel takes no mask and no cache"
    if attributes.get("softcap", 0.0) or attributes.get("softmax_precision") not in (None, 1):
        return "the kernel has no softcap, and computes in float32"
    shapes = [value.shape for value in node.inputs[:3]]
    if any(shape is None or len(shape) != 4 for shape in shapes):
        return "the kernel takes four axes: batch, heads, sequence, size"
    widths = [shape[3] for shape in shapes if shape is not None]
    known = all(isinstance(width, int) and width <= WIDEST for width in widths)
    return known or f"the kernel takes heads of at most {WIDEST} elements, found {widths}"


@kernel(
    "Attention",
    since=23,
    types={"T1": {"float32", "float16"}, "T2": {"float32", "float16"}},
    when=plain_attention,
)
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *rest: Tensor | None,
    is_causal: int = 0,
    scale: float | None = None,
    context: RunContext,
    node: Any,
) -> Tensor:
    """Queries [B, H, L, D], keys [B, G, S, D], values [B, G, S, E]; H is a multiple of G."""
    batch, heads, queries, size = q.shape
    groups, keys, width = k.shape[1], k.shape[2], v.shape[3]
    if heads % max(1, groups) or k.shape[0] != batch or k.shape[3] != size or v.shape[:3] != k.shape[:3]:
        raise ValueError(f"queries {q.shape}, keys {k.shape} and values {v.shape} do not fit")
    out = output(context, node, q, (batch, heads, queries, width))
    factor = 1 / math.sqrt(size) if scale is None else scale
    sizes = map(np.int32, (heads, heads // max(1, groups), queries, keys, size, width, is_causal))
    arguments = [*sizes, np.float32(factor), *(dense(context, item) for item in (q, k, v)), out.array]
    grid = batch * heads * queries if width else 0
    launch(context, attention_source(stored(q.dtype)), "attention", grid, 32 * WARPS, arguments)
    return out


KERNELS: tuple[Kernel, ...] = (attention,)


def sources() -> list[str]:
    """Every source that these kernels launch."""
    return [attention_source("float"), attention_source("f16")]
