"""Products with weights of 4 or 8 bits: a few rows read them as they are stored, for many they are unpacked first."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from epkit.backend import Kernel, RunContext, element_type, kernel
from epkit.kernels.attributes import attribute_values

from ..launch import dense, launch, stream_of
from ..memory import Tensor
from ..source import PRELUDE, computed, stored
from . import gemv
from .products import multiply
from .rows import output

WARPS = 4
"""Warps of a block."""

MOST_ROWS = 8
"""Rows up to which the weights are read as they are stored."""

BLOCK, GRID = 256, 1 << 16
TYPES = ("float32", "float16", "bfloat16")

PARAMETERS = """int m, int n_all, int k_all, int block, int blocks, int point_bytes,
    const T* __restrict__ a, const unsigned char* __restrict__ q, const T* __restrict__ scales,
    const unsigned char* __restrict__ points, T* __restrict__ y"""


def _beginning(c_type: str, bits: int, points: bool) -> str:
    """Types, and the zero point of row n of the weights in block g.

    The source of the layout is the operator's documentation: q [N, blocks, block bytes], low bits first; scales
    [N blocks]; zero points packed like q, one row of ceil(blocks bits / 8) bytes for each n; 2^(bits - 1) without.
    """
    each, mask = 8 // bits, (1 << bits) - 1
    found = f"points[n * point_bytes + g / {each}] >> (g % {each} * {bits}) & {mask}"
    return f"""{PRELUDE}
typedef {c_type} T; typedef {computed(c_type)} C;
__device__ inline int point_of(const unsigned char* points, long long n, int g, int point_bytes) {{
  return {found if points else str(1 << (bits - 1))};
}}
"""


def n_bits_source(c_type: str, bits: int, *, points: bool) -> str:
    """y[m, n] = sum over k of a[m, k] (q[n, k] - point) scale, the last two by blocks of k; a byte a lane."""
    each, mask = 8 // bits, (1 << bits) - 1
    return f"""{_beginning(c_type, bits, points)}
extern "C" __global__ void n_bits({PARAMETERS}) {{
  const long long job = (long long)blockIdx.x * {WARPS} + threadIdx.x / 32;
  const int lane = threadIdx.x & 31, n = (int)(job % n_all);
  const long long row = job / n_all;
  const bool works = row < m;
  C total = 0;
  const int bytes = block / {each};
  if (works) for (int at = lane; at < blocks * bytes; at += 32) {{
    const int g = at / bytes, k = at * {each}, zero = point_of(points, n, g, point_bytes);
    const unsigned packed = q[(long long)n * blocks * bytes + at];
    const C scale = widen(scales[(long long)n * blocks + g]);
    for (int part = 0; part < {each}; part++)
      if (k + part < k_all)
        total += (C)widen(a[row * k_all + k + part]) * scale * ((int)((packed >> (part * {bits})) & {mask}) - zero);
  }}
  for (int step = 16; step; step >>= 1) total += __shfl_xor_sync(0xffffffffu, total, step);
  if (works && lane == 0) narrow(total, y[row * n_all + n]);
}}
"""


def unpacked_source(c_type: str, bits: int, *, points: bool) -> str:
    """y[n, k] = (q[n, k] - point) scale."""
    each, mask = 8 // bits, (1 << bits) - 1
    return f"""{_beginning(c_type, bits, points)}
extern "C" __global__ void unpacked({PARAMETERS}) {{
  const long long count = (long long)n_all * k_all, threads = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += threads) {{
    const long long n = i / k_all;
    const int k = (int)(i % k_all), g = k / block;
    const unsigned packed = q[n * blocks * (block / {each}) + k / {each}];
    const int value = (int)(packed >> (k % {each} * {bits}) & {mask}) - point_of(points, n, g, point_bytes);
    narrow(value * (C)widen(scales[n * blocks + g]), y[i]);
  }}
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
    found = {element_type(node.inputs[0]), element_type(node.inputs[2])}
    return (
        len(found) == 1 and found <= set(TYPES)
    ) or f"the kernel needs one of {TYPES}, found {sorted(found)}"


def matmul_n_bits_of(precision: str) -> Kernel:
    """MatMulNBits; ``precision`` is that of the product with unpacked weights."""

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
        sizes = list(map(np.int32, (rows, N, K, block_size, blocks, point_bytes)))
        weights = [dense(context, item) for item in (a, q, scales, q if points is None else points)]
        options = {"points": points is not None}
        if rows > MOST_ROWS:
            whole = stream_of(context).machine.xp.empty((N, K), a.dtype)
            source = unpacked_source(stored(a.dtype), bits, **options)
            grid = min(GRID, -(-N * K // BLOCK))
            launch(context, source, "unpacked", grid, BLOCK, [*sizes, *weights, whole])
            multiply(context, weights[0], whole.T, out.array, precision)
            return out
        left, zeros = weights[0].reshape(rows, K), None if points is None else weights[3]
        packed = gemv.Packed(weights[1], weights[2], zeros, N, K, block_size, bits)
        if gemv.fits(left, [packed], MOST_ROWS):
            gemv.multiply(context, left, [packed], [out.array], gemv.Around())
            return out
        source = n_bits_source(stored(a.dtype), bits, **options)
        launch(context, source, "n_bits", -(-rows * N // WARPS), 32 * WARPS, [*sizes, *weights, out.array])
        return out

    return matmul_n_bits


def sources() -> list[str]:
    """Every source that these kernels launch."""
    return [
        write(t, bits, points=points)
        for write in (n_bits_source, unpacked_source)
        for t in ("float", "f16", "bf16")
        for bits in (4, 8)
        for points in (False, True)
    ]
