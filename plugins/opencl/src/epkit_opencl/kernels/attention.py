"""Attention in tiles: scores of a block of queries and a panel of keys live in registers, never all of them.

Per block of queries the running maximum and sum of the softmax are kept, and the result is rescaled when the
maximum grows (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al.,
"FlashAttention", 2022). Keys and values are packed into the panels of the matrix product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from epkit.backend import RunContext, element_type, kernel

from ..launch import launch
from ..memory import Tensor
from ..strides import broadcast, contiguous
from .activations import MICROSOFT, single
from .formulas import FLOATS
from .gemm import Side, pack, temporary
from .gemm_source import WIDTH
from .movement import copy, fresh

ROWS = 8
"""Queries of a block."""

STATE = 2048
"""Numbers of a block's result that a work-item holds; where heads are wide, it takes fewer queries."""


@dataclass(frozen=True)
class Heads:
    """A tensor as (batch, heads, length, size), whichever way it is laid out.

    Attributes:
        tensor: the elements.
        shape: batch, heads, length, size.
        strides: of batch, heads and length; the size is dense.
    """

    tensor: Tensor
    shape: tuple[int, int, int, int]
    strides: tuple[int, int, int]


def heads_of(x: Tensor, heads: int) -> Heads:
    """A view of (batch, heads, length, size) or (batch, length, heads size).

    Raises:
        ValueError: if the heads do not divide the last axis.
    """
    if x.ndim == 4:
        b, h, length, size = x.shape
        return Heads(x, (b, h, length, size), (h * length * size, length * size, size))
    if x.ndim != 3 or heads < 1 or x.shape[2] % heads:
        raise ValueError(f"shape {x.shape} cannot be split into {heads} heads")
    b, length, width = x.shape
    return Heads(x, (b, heads, length, width // heads), (length * width, width // heads, width))


def joined(context: RunContext, past: Tensor | None, new: Heads, out: Tensor) -> Heads:
    """Past and new elements one after the other, as (batch, heads, length, size)."""
    whole = contiguous(out.shape)
    before = 0
    if past is not None:
        copy(context, past, out, past.shape, contiguous(past.shape), whole)
        before = past.shape[2]
    copy(context, new.tensor, out, new.shape, [*new.strides, 1], whole, 0, before * whole[2])
    return heads_of(out, out.shape[1])


def attend(
    context: RunContext,
    q: Heads,
    k: Heads,
    v: Heads,
    out: Heads,
    scale: float,
    *,
    mask: Tensor | None = None,
    softcap: float = 0.0,
    causal: int | None = None,
) -> None:
    """out = softmax(softcap(q k' scale) + mask) v.

    Args:
        context: of the run.
        q, k, v, out: as (batch, heads, length, size); a head of k and v may serve several of q.
        scale: the factor of the scores.
        mask: added, or of bool: what may be seen; broadcast to (batch, heads, queries, keys). A shorter one hides
            the rest of the keys.
        softcap: scores are bounded by it, if it is not 0.
        causal: a query at i sees keys up to i + causal; None: all.
    """
    (batch, heads, rows, size), (_, shared, keys, _) = q.shape, k.shape
    wide = v.shape[3]
    if k.shape[3] != size or v.shape[:3] != k.shape[:3] or not shared or heads % shared:
        raise ValueError(f"queries {q.shape}, keys {k.shape} and values {v.shape} do not fit together")
    pack_k = Side(k.tensor, 1, k.strides[2], k.strides[1], outer=k.strides[0], inner=shared)
    pack_v = Side(v.tensor, v.strides[2], 1, v.strides[1], outer=v.strides[0], inner=shared)
    key_panels = pack(context, pack_k, size, keys, batch * shared, "keys")
    value_panels = pack(context, pack_v, keys, wide, batch * shared, "values")
    steps, told = [0, 0, 0, 0], keys
    if mask is not None:
        told = mask.shape[-1] if mask.shape and mask.shape[-1] != 1 else keys
        steps = broadcast(mask.shape, (batch, heads, rows, told))
        np.broadcast_shapes(mask.shape, (batch, heads, rows, told))
    panels = -(-wide // WIDTH)
    block = min(ROWS, rows, max(1, STATE // (panels * WIDTH)))
    kind = None if mask is None else "bool" if mask.dtype == np.bool_ else "number"
    source = _source(block, panels, kind, bool(softcap), causal is not None)
    arguments: list[Any] = [
        heads, heads // shared, rows, size, keys, wide, q.tensor, key_panels, value_panels, out.tensor,
        *q.strides, *out.strides, np.float32(scale),
    ]  # fmt: skip
    arguments += [] if mask is None else [mask, *steps, told]
    arguments += [np.float32(softcap)] if softcap else []
    arguments += [] if causal is None else [causal]
    launch(context, source, "attend", [-(-rows // block), batch * heads], arguments, group=[1, 1])


def _source(block: int, panels: int, mask: str | None, softcap: bool, causal: bool) -> str:
    extra = ""
    score = "float x = s[r][j] * scale;"
    if softcap:
        extra += ", const float cap"
        score += " x = tanh(x / cap) * cap;"
    if mask is not None:
        t = "uchar" if mask == "bool" else "float"
        extra = (
            f", __global const {t}* m, const long om, const int mb, const int mh, const int mr, const int mc"
            f", const int told{extra}"
        )
        found = (
            "m[om + (long)z0 * mb + (long)z1 * mh + (long)min(i + r, rows - 1) * mr + (long)(at + j) * mc]"
        )
        hidden = f"!{found}" if mask == "bool" else "false"
        score += f" if (at + j >= told || {hidden}) x = -INFINITY;"
        score += f" else x += {found};" if mask == "number" else ""
    if causal:
        extra += ", const int ahead"
        score += " if (at + j > i + r + ahead) x = -INFINITY;"
    last = "min(keys, i + ROWS + ahead)" if causal else "keys"
    return f"""
#define ROWS {block}
#define PANELS {panels}
__kernel void attend(const int heads, const int serves, const int rows, const int size, const int keys, const int wide,
                     __global const float* q, const long oq, __global const float* k, const long ok,
                     __global const float* v, const long ov, __global float* y, const long oy,
                     const int qb, const int qh, const int qr, const int yb, const int yh, const int yr,
                     const float scale{extra}) {{
  const int i = get_global_id(0) * ROWS, z0 = get_global_id(1) / heads, z1 = get_global_id(1) % heads;
  const long shared = (long)z0 * (heads / serves) + z1 / serves;
  const int key_panels = (keys + {WIDTH - 1}) / {WIDTH};
  q += oq + (long)z0 * qb + (long)z1 * qh;
  k += ok + shared * key_panels * size * {WIDTH};
  v += ov + shared * PANELS * keys * {WIDTH};
  y += oy + (long)z0 * yb + (long)z1 * yh;
  float s[ROWS][{WIDTH}], top[ROWS], total[ROWS], o[ROWS][PANELS * {WIDTH}];
  for (int r = 0; r < ROWS; r++) {{
    top[r] = -INFINITY;
    total[r] = 0;
    for (int c = 0; c < PANELS * {WIDTH}; c++) o[r][c] = 0;
  }}
  const int last = {last};
  for (int at = 0; at < last; at += {WIDTH}) {{
    __global const float* kp = k + (long)at * size;
    float16 low[ROWS], high[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) low[r] = high[r] = 0;
    for (int d = 0; d < size; d++) {{
      const float16 l = vload16(0, kp + d * {WIDTH}), h = vload16(1, kp + d * {WIDTH});
#pragma unroll
      for (int r = 0; r < ROWS; r++) {{
        const float16 x = q[(long)min(i + r, rows - 1) * qr + d];
        low[r] = fma(x, l, low[r]);
        high[r] = fma(x, h, high[r]);
      }}
    }}
    const int count = min({WIDTH}, last - at);
    for (int r = 0; r < ROWS; r++) {{
      vstore16(low[r], 0, s[r]);
      vstore16(high[r], 1, s[r]);
      float peak = top[r];
      for (int j = 0; j < count; j++) {{
        {score}
        s[r][j] = x;
        peak = x != x || x > peak ? x : peak;
      }}
      for (int j = count; j < {WIDTH}; j++) s[r][j] = -INFINITY;
      const float base = peak == -INFINITY ? 0 : peak;
      const float shrink = exp(top[r] - base);
      const float16 a = exp(vload16(0, s[r]) - base), b = exp(vload16(1, s[r]) - base);
      vstore16(a, 0, s[r]);
      vstore16(b, 1, s[r]);
      const float16 ab = a + b;
      const float8 e8 = ab.lo + ab.hi;
      const float4 e4 = e8.lo + e8.hi;
      total[r] = total[r] * shrink + e4.s0 + e4.s1 + e4.s2 + e4.s3;
      top[r] = peak;
      for (int c = 0; c < PANELS * {WIDTH}; c++) o[r][c] *= shrink;
    }}
    for (int p = 0; p < PANELS; p++) {{
      __global const float* vp = v + ((long)p * keys + at) * {WIDTH};
#pragma unroll
      for (int r = 0; r < ROWS; r++) {{
        low[r] = vload16(0, o[r] + p * {WIDTH});
        high[r] = vload16(1, o[r] + p * {WIDTH});
      }}
      for (int j = 0; j < count; j++) {{
        const float16 l = vload16(0, vp + j * {WIDTH}), h = vload16(1, vp + j * {WIDTH});
#pragma unroll
        for (int r = 0; r < ROWS; r++) {{
          const float16 x = s[r][j];
          low[r] = fma(x, l, low[r]);
          high[r] = fma(x, h, high[r]);
        }}
      }}
#pragma unroll
      for (int r = 0; r < ROWS; r++) {{
        vstore16(low[r], 0, o[r] + p * {WIDTH});
        vstore16(high[r], 1, o[r] + p * {WIDTH});
      }}
    }}
  }}
  for (int r = 0; r < ROWS && i + r < rows; r++)
    for (int c = 0; c < wide; c++) y[(long)(i + r) * yr + c] = total[r] == 0 ? 0 : o[r][c] / total[r];
}}
"""


def plain(node: Any) -> bool | str:
    """No scores as an output, no windows, no lengths of padding; float32."""
    if len(node.outputs) > 3 and node.outputs[3].name:
        return "Attention that returns its scores has no kernel"
    if len(node.inputs) > 6 and node.inputs[6] is not None:
        return "Attention with nonpad_kv_seqlen has no kernel"
    windows = (node.attributes.get(f"{side}_window_size") for side in ("left", "right"))
    if any(window is not None and window.as_int() >= 0 for window in windows):
        return "Attention in a window has no kernel"
    types = {element_type(value) for value in node.inputs[:3] if value is not None}
    return types == {"float32"} or "Attention has a kernel for float32"


def scale_of(scale: float | None, size: int) -> float:
    """By default 1 / sqrt(size)."""
    return 1 / math.sqrt(max(1, size)) if scale is None else scale


@kernel("Attention", since=23, types={"T1": FLOATS, "T2": FLOATS, "U": FLOATS | {"bool"}}, when=plain)
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    nonpad: Tensor | None = None,
    *,
    is_causal: int = 0,
    q_num_heads: int = 0,
    kv_num_heads: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    qk_matmul_output_mode: int = 0,
    softmax_precision: int = 1,
    context: RunContext,
    node: Any,
) -> tuple[Tensor | None, ...]:
    """softmax(softcap(q k' scale) + mask) v; then the present keys and values, where they are asked for."""
    query = heads_of(q, q_num_heads)
    sides: list[Heads] = []
    presents: list[Tensor | None] = []
    for index, (new, past) in enumerate(((k, past_key), (v, past_value)), start=1):
        side = heads_of(new, kv_num_heads)
        present: Tensor | None = None
        wanted = len(node.outputs) > index and bool(node.outputs[index].name)
        if past is not None or wanted:
            b, h, length, size = side.shape
            shape = (b, h, length + (0 if past is None else past.shape[2]), size)
            whole = fresh(context, node, shape, new, index) if wanted else None
            if whole is None:
                whole = temporary(context, f"present {index}", shape, new, keep=False)
            side, present = joined(context, past, side, whole), whole if wanted else None
        sides.append(side)
        presents.append(present)
    b, h, rows, size = query.shape
    key, value = sides
    wide = value.shape[3]
    out = fresh(context, node, (b, h, rows, wide) if q.ndim == 4 else (b, rows, h * wide), q)
    before = 0 if past_key is None else past_key.shape[2]
    attend(
        context, query, key, value, heads_of(out, h), scale_of(scale, size),
        mask=mask, softcap=softcap, causal=before if is_causal else None,
    )  # fmt: skip
    return out, *presents


def unpadded(node: Any) -> bool | str:
    """Queries, keys, values and a bias of the scores."""
    if any(value is not None for value in (*node.inputs[3:5], *node.inputs[6:])):
        return "MultiHeadAttention with a bias, a padding mask or a past has no kernel"
    if any(value.name for value in node.outputs[1:]):
        return "MultiHeadAttention with present keys has no kernel"
    if any(value is None for value in node.inputs[:3]):
        return "MultiHeadAttention with keys packed into the queries has no kernel"
    if any(value.shape is not None and len(value.shape) != 3 for value in node.inputs[:3]):
        return "MultiHeadAttention has a kernel for 3 axes"
    return single(node)


@kernel("MultiHeadAttention", domain=MICROSOFT, when=unpadded)
def multi_head(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: None = None,
    padding: None = None,
    mask: Tensor | None = None,
    *,
    num_heads: int,
    scale: float = 0.0,
    unidirectional: int = 0,
    context: RunContext,
    node: Any,
) -> Tensor:
    """Attention over (batch, length, heads size); ``mask`` is added to the scores."""
    query, key, value = (heads_of(item, num_heads) for item in (q, k, v))
    out = fresh(context, node, (*q.shape[:2], v.shape[2]), q)
    attend(
        context, query, key, value, heads_of(out, num_heads), scale or scale_of(None, query.shape[3]),
        mask=mask, causal=0 if unidirectional else None,
    )  # fmt: skip
    return out


KERNELS = (attention, multi_head)
