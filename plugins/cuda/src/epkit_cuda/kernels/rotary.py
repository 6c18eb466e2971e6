"""Rotary position embedding: one thread a number. Su et al., "RoFormer" (2021)."""

from __future__ import annotations

from typing import Any

import numpy as np

from epkit.backend import Kernel, RunContext, kernel
from epkit.kernels.attributes import attribute_values

from ..launch import dense, launch, stream_of
from ..memory import Tensor
from ..source import PRELUDE, stored
from .attention import TYPES, split
from .rows import output

BLOCK, GRID = 256, 1 << 16

BY_SAMPLE, BY_POSITION, FROM_FIRST = 0, 1, 2
"""Angles given for each sample and place; by position, the positions for each; or from one position on."""


def rotary_source(c_type: str, *, interleaved: bool) -> str:
    """Pairs (a, b) become (a cos - b sin, a sin + b cos): neighbours if interleaved, else one of each half."""
    pair = "d ^ 1" if interleaved else "d < pairs ? d + pairs : d - pairs"
    first = "!(d & 1)" if interleaved else "d < pairs"
    angle = "d / 2" if interleaved else "d % pairs"
    return f"""{PRELUDE}
typedef {c_type} T;
extern "C" __global__ void rotary(long long n, int heads, int length, int size, int pairs, int mode, int positions,
    long long step_b, long long step_h, long long step_i, const T* __restrict__ x, const T* __restrict__ cosines,
    const T* __restrict__ sines, const long long* __restrict__ ids, T* __restrict__ y, int* fault) {{
  const long long threads = (long long)gridDim.x * blockDim.x;
  for (long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x; at < n; at += threads) {{
    const int d = at % size, i = at / size % length, h = at / size / length % heads;
    const long long b = at / size / length / heads, row = b * step_b + h * step_h + i * step_i;
    if (d >= 2 * pairs) {{ y[row + d] = x[row + d]; continue; }}
    long long place = b * length + i;
    if (mode) {{
      place = mode == {BY_POSITION} ? ids[place] : ids[0] + i;
      if (place < 0 || place >= positions) {{ atomicOr(fault, 1); continue; }}
    }}
    const long long angle = place * pairs + ({angle});
    const float c = widen(cosines[angle]), s = widen(sines[angle]);
    const float mine = widen(x[row + d]), other = widen(x[row + ({pair})]);
    narrow({first} ? mine * c - other * s : mine * c + other * s, y[row + d]);
  }}
}}
"""


def rotate(
    context: RunContext,
    node: Any,
    x: Tensor,
    cosines: Tensor,
    sines: Tensor,
    ids: Tensor | None,
    heads: int | None,
    turned: int,
    interleaved: int,
) -> Tensor:
    """x [B, H, L, D], or [B, L, H D]; angles [B, L, pairs] or, with positions, [P, pairs]."""
    out = output(context, node, x)
    given = dense(context, x)
    pairs = cosines.shape[-1]
    if x.ndim == 3 and not heads:
        heads = x.shape[2] // max(1, turned or 2 * pairs)
    view = split(given, heads, "X")
    batch, heads, length, size = view.shape
    if turned not in (0, 2 * pairs) or 2 * pairs > size or (not turned and 2 * pairs != size):
        raise ValueError(f"{pairs} angles do not turn {turned or size} of {size} features")
    mode = BY_SAMPLE if ids is None else BY_POSITION if ids.size == batch * length != 1 else FROM_FIRST
    wanted = (batch, length, pairs) if ids is None else (cosines.shape[0], pairs)
    if (
        cosines.shape != wanted
        or sines.shape != wanted
        or (mode == FROM_FIRST and ids is not None and ids.size != 1)
    ):
        raise ValueError(f"angles {cosines.shape} and {sines.shape} do not fit an input of shape {x.shape}")
    counts = (heads, length, size, pairs, mode, cosines.shape[0])
    steps = [np.int64(step // x.dtype.itemsize) for step in view.strides[:3]]
    angles = [dense(context, item) for item in (cosines, sines)]
    places = angles[0] if ids is None else dense(context, ids)
    fault = stream_of(context).fault(str(node.name))
    arguments = [np.int64(out.size), *map(np.int32, counts), *steps, given, *angles, places, out.array, fault]
    source = rotary_source(stored(x.dtype), interleaved=bool(interleaved))
    launch(context, source, "rotary", min(GRID, -(-out.size // BLOCK)), BLOCK, arguments)
    return out


@kernel("RotaryEmbedding", since=23, types={"T": TYPES})
def rotary_embedding(
    x: Tensor,
    cosines: Tensor,
    sines: Tensor,
    ids: Tensor | None = None,
    *,
    interleaved: int = 0,
    num_heads: int | None = None,
    rotary_embedding_dim: int = 0,
    context: RunContext,
    node: Any,
) -> Tensor:
    """The standard's."""
    return rotate(context, node, x, cosines, sines, ids, num_heads, rotary_embedding_dim, interleaved)


def one_scale(node: Any) -> bool | str:
    """What both operators have in common."""
    attributes = attribute_values(node)
    if attributes.get("scale", 1.0) != 1.0 or attributes.get("is_packed_batching", 0):
        return "the kernel knows no scale and no packed batches"
    if attributes.get("rotary_embedding_dim", 0) and not attributes.get("num_heads", 0):
        return "rotary_embedding_dim needs num_heads"
    return True


@kernel("RotaryEmbedding", domain="com.microsoft", types={"T": TYPES}, when=one_scale)
def rotary_embedding_of_microsoft(
    x: Tensor,
    ids: Tensor,
    cosines: Tensor,
    sines: Tensor,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
    context: RunContext,
    node: Any,
) -> Tensor:
    """com.microsoft's: positions come second, and may be the first one alone."""
    return rotate(context, node, x, cosines, sines, ids, num_heads, rotary_embedding_dim, interleaved)


KERNELS: tuple[Kernel, ...] = (rotary_embedding, rotary_embedding_of_microsoft)


def sources() -> list[str]:
    """Every source that these kernels launch."""
    return [rotary_source(t, interleaved=pairs) for t in ("float", "f16", "bf16") for pairs in (False, True)]
