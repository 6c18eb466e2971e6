"""A few rows times a matrix whose columns are dense: one warp a column, which streams it once.

Here the time is that of reading the weights; libraries split such products into more kernels than one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from epkit.backend import RunContext

from ..launch import launch
from ..source import PRELUDE, computed, stored

MOST_ROWS = 4
WARPS = 4
"""Warps of a block."""

NARROWEST, SMALLEST = 32, 1 << 16
"""Columns, and elements of the matrix, from which on it is worth it."""

WIDTH = 16
"""Bytes that a lane reads at once."""

ACTIVATIONS = {
    "": "{0}",
    "relu": "({0} < 0 ? 0 : {0})",
    "gelu_tanh": "(0.5f * {0} * (1 + tanh(0.7978845608028654f * ({0} + 0.044715f * {0} * {0} * {0}))))",
}
"""What is done to a sum, by name."""


def gemv_source(c_type: str, rows: int, *, bias: bool, activation: str) -> str:
    """y[r, n] = activation(sum over k of a[r, k] b[n, k] + bias[n]) for ``rows`` rows."""
    total = "totals[r]" + (" + widen(bias[n])" if bias else "")
    return f"""{PRELUDE}
typedef {c_type} T; typedef {computed(c_type)} C;
const int EACH = {WIDTH} / sizeof(T);
struct alignas({WIDTH}) Pack {{ T v[EACH]; }};
extern "C" __global__ void gemv(int columns, int packs, long long step, const T* __restrict__ a,
    const T* __restrict__ b, const T* __restrict__ bias, T* __restrict__ y) {{
  const int n = blockIdx.x * {WARPS} + threadIdx.x / 32, lane = threadIdx.x & 31;
  const bool works = n < columns;
  const Pack* column = (const Pack*)(b + (works ? n : 0) * step);
  C totals[{rows}] = {{}};
  #pragma unroll 4
  for (int at = lane; at < packs; at += 32) {{
    const Pack w = column[at];
    for (int r = 0; r < {rows}; r++) {{
      const Pack x = ((const Pack*)a)[r * packs + at];
      for (int j = 0; j < EACH; j++) totals[r] += widen(x.v[j]) * widen(w.v[j]);
    }}
  }}
  for (int r = 0; r < {rows}; r++) {{
    for (int part = 16; part; part >>= 1) totals[r] += __shfl_xor_sync(0xffffffffu, totals[r], part);
    if (works && lane == 0) {{
      const C sum = {total};
      narrow({ACTIVATIONS[activation].format("sum")}, y[r * columns + n]);
    }}
  }}
}}
"""


def fits(a: Any, b: Any) -> bool:
    """True if rows a [m, k] and a matrix b [k, n] are what the kernel takes."""
    k, n = b.shape
    each = b.dtype.itemsize
    wide = k * each % WIDTH == 0 and b.strides[0] == each and b.strides[1] >= k * each
    aligned = b.strides[1] % WIDTH == 0 and b.data.ptr % WIDTH == 0 and a.data.ptr % WIDTH == 0
    few = 0 < a.shape[0] <= MOST_ROWS and n >= NARROWEST and k * n >= SMALLEST
    return few and wide and aligned and bool(a.flags.c_contiguous) and a.dtype == b.dtype


def multiply(context: RunContext, a: Any, b: Any, out: Any, bias: Any, activation: str) -> None:
    """out = activation(a b + bias) for arrays that fit."""
    rows, (k, n) = a.shape[0], b.shape
    each = b.dtype.itemsize
    source = gemv_source(stored(b.dtype), rows, bias=bias is not None, activation=activation)
    sizes = [np.int32(n), np.int32(k * each // WIDTH), np.int64(b.strides[1] // each)]
    arguments = [*sizes, a, b, a if bias is None else bias, out]
    launch(context, source, "gemv", -(-n // WARPS), 32 * WARPS, arguments)


def sources() -> list[str]:
    """Every source that these kernels launch."""
    return [
        gemv_source(t, rows, bias=bias, activation=activation)
        for t in ("float", "f16", "bf16")
        for rows in (1, MOST_ROWS)
        for bias in (False, True)
        for activation in ACTIVATIONS
    ]
