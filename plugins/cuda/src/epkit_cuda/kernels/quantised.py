"""Products with weights of 4 or 8 bits, read as they are stored: one warp for each number of the result."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from epkit.backend import Kernel, RunContext, element_type, kernel
from epkit.kernels.attributes import attribute_values

from ..launch import dense, launch
from ..memory import Tensor
from ..source import PRELUDE, computed, stored
from .rows import output

WARPS = 4
"""Warps of a block."""


def n_bits_source(c_type: str, bits: int, *, points: bool) -> str:
    """y[m, n] = sum over k of a[m, k] (q[n, k] - point) scale, the last two by blocks of k.

    The source of the layout is the operator's documentation: q [N, blocks, block bytes], low bits first; scales
    [N blocks]; zero points packed like q, one row of ceil(blocks bits / 8) bytes for each n; 2^(bits - 1) without.
    """
    each = 8 // bits
    mask = (1 << bits) - 1
    zero = f"(points[n * point_bytes + g / {each}] >> (g % {each} * {bits})) & {mask}"
    return f"""{PRELUDE}
typedef {c_type} T;
extern "C" __global__ void n_bits(int m, int n_all, int k_all, int block, int blocks, int point_bytes,
    const T* __restrict__ a, const unsigned char* __restrict__ q, const T* __restrict__ scales,
    const unsigned char* __restrict__ points, T* __restrict__ y) {{
  const long long job = (long long)blockIdx.x * {WARPS} + threadIdx.x / 32;
  const int lane = threadIdx.x & 31, n = (int)(job % n_all);
  const long long row = job / n_all;
  const bool works = row < m;
  {computed(c_type)} total = 0;
  const int bytes = block / {each};
  if (works) for (int at = lane; at < blocks * bytes; at += 32) {{
    const int g = at / bytes, k = at * {each};
    const unsigned packed = q[(long long)n * blocks * bytes + at];
    const int zero = {zero if points else str(1 << (bits - 1))};
    const {computed(c_type)} scale = widen(scales[(long long)n * blocks + g]);
    for (int part = 0; part < {each}; part++)
      if (k + part < k_all)
        total += widen(a[row * k_all + k + part]) * scale * ((int)((packed >> (part * {bits})) & {mask}) - zero);
  }}
  for (int step = 16; step; step >>= 1) total += __shfl_xor_sync(0xffffffffu, total, step);
  if (works && lane == 0) narrow(total, y[row * n_all + n]);
}}
"""


def streams(node: Any) -> bool | str:
    """4 or 8 bits, packed zero points, no reordering of columns."""
    attributes = attribute_values(node)
    if attributes.get("bits", 4) not in (4, 8):
        return f"bits is {attributes.get('bits')}, the kernel reads 4 or 8"
    more = [value for value in node.inputs[4:] if value is not None and value.name]
    if more:
        return f"{more[0].name}: the kernel takes no g_idx and no bias"
    if len(node.inputs) > 3 and node.inputs[3] is not None and element_type(node.inputs[3]) != "uint8":
        return "the kernel needs packed zero points (uint8)"
    types = {element_type(node.inputs[0]), element_type(node.inputs[2])}
    return (
        types in ({"float32"}, {"float16"}) or f"the kernel needs float32 or float16, found {sorted(types)}"
    )


@kernel("MatMulNBits", domain="com.microsoft", when=streams)
def matmul_n_bits(
    a: Tensor,
    q: Tensor,
    scales: Tensor,
    points: Tensor | None = None,
    *rest: Tensor | None,
    K: int,
    N: int,
    block_size: int,
    bits: int = 4,
    context: RunContext,
    node: Any,
) -> Tensor:
    """a [..., K] times the stored weight [K, N]."""
    if a.shape[-1:] != (K,):
        raise ValueError(f"the last axis of A has shape {a.shape[-1:]}, expected K = {K}")
    out = output(context, node, a, (*a.shape[:-1], N))
    rows, blocks = math.prod(a.shape[:-1]), -(-K // block_size)
    point_bytes = -(-blocks * bits // 8)
    sizes = map(np.int32, (rows, N, K, block_size, blocks, point_bytes))
    weights = [dense(context, item) for item in (a, q, scales, q if points is None else points)]
    source = n_bits_source(stored(a.dtype), bits, points=points is not None)
    launch(context, source, "n_bits", -(-rows * N // WARPS), 32 * WARPS, [*sizes, *weights, out.array])
    return out


KERNELS: tuple[Kernel, ...] = (matmul_n_bits,)


def sources() -> list[str]:
    """Every source that these kernels launch."""
    return [
        n_bits_source(t, bits, points=p) for t in ("float", "f16") for bits in (4, 8) for p in (False, True)
    ]
