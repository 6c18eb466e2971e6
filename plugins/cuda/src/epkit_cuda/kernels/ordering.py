"""TopK of a few: a block for each row, which looks for the next one as often as is asked for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from epkit.backend import Kernel, RunContext, kernel, portable_kernels

from ..launch import dense, launch, on_host
from ..machine import Machine
from ..memory import Tensor
from ..source import PRELUDE, computed, stored
from .formulas import NUMBERS
from .rows import axis_of

THREADS = 256
MOST = 128
"""Elements up to which looking again for each is worth it; for more they are sorted."""


def top_source(c_type: str, *, largest: bool) -> str:
    """The first ``count`` of each row in order; of equals the first; a NaN is greater than any number."""
    before = "a > b || (a != a && b == b)" if largest else "a < b || (b != b && a == a)"
    return f"""{PRELUDE}
typedef {c_type} T; typedef {computed(c_type)} C;
__device__ inline bool before(C a, C b) {{ return {before}; }}
__device__ inline bool first(C a, int i, C b, int j) {{ return before(a, b) || (!before(b, a) && i < j); }}
extern "C" __global__ void top(int size, long long inner, int count, const T* __restrict__ p, T* __restrict__ values,
    long long* __restrict__ places) {{
  __shared__ C best[{THREADS}];
  __shared__ int where[{THREADS}];
  const long long outer = blockIdx.x / inner, rest = blockIdx.x % inner;
  const T* row = p + outer * size * inner + rest;
  C last = 0;
  int last_place = -1;
  for (int n = 0; n < count; n++) {{
    C found = 0;
    int place = -1;
    for (int j = threadIdx.x; j < size; j += {THREADS}) {{
      const C x = widen(row[j * inner]);
      const bool later = last_place < 0 || first(last, last_place, x, j);
      if (later && (place < 0 || first(x, j, found, place))) {{ found = x; place = j; }}
    }}
    best[threadIdx.x] = found;
    where[threadIdx.x] = place;
    __syncthreads();
    for (int half = {THREADS} / 2; half; half >>= 1) {{
      if (threadIdx.x < half && where[threadIdx.x + half] >= 0) {{
        const C other = best[threadIdx.x + half];
        const int there = where[threadIdx.x + half];
        if (where[threadIdx.x] < 0 || first(other, there, best[threadIdx.x], where[threadIdx.x])) {{
          best[threadIdx.x] = other;
          where[threadIdx.x] = there;
        }}
      }}
      __syncthreads();
    }}
    last = best[0];
    last_place = where[0];
    if (threadIdx.x == 0) {{
      const long long at = (outer * count + n) * inner + rest;
      narrow(last, values[at]);
      places[at] = last_place;
    }}
    __syncthreads();
  }}
}}
"""


def topk_kernels(machine: Machine) -> list[Kernel]:
    """TopK; for many elements the portable operator."""
    portable = portable_kernels(machine.xp, only={"TopK"})[-1]

    @kernel("TopK", since=11, types={"T": NUMBERS})
    def top_k(
        x: Tensor,
        k: Tensor,
        *,
        axis: int = -1,
        largest: int = 1,
        sorted: int = 1,
        context: RunContext,
        node: Any,
    ) -> tuple[Tensor, ...]:
        """The values and their places along the axis."""
        at, count = axis_of(axis, x.ndim), int(on_host(context, k).reshape(-1)[0])
        size = x.shape[at]
        if not 0 <= count <= size:
            raise ValueError(f"k is {count}, expected 0 to {size}, the size of axis {at}")
        if count > MOST:
            given = (x.array, on_host(context, k))
            return tuple(map(Tensor, portable.function(*given, axis=axis, largest=largest, sorted=sorted)))
        shape = (*x.shape[:at], count, *x.shape[at + 1 :])
        values: Tensor = context.empty(node.outputs[0], shape, x.dtype)
        places: Tensor = context.empty(node.outputs[1], shape, np.dtype(np.int64))
        inner = math.prod(x.shape[at + 1 :])
        arguments = [np.int32(size), np.int64(max(1, inner)), np.int32(count), dense(context, x)]
        source = top_source(stored(x.dtype), largest=bool(largest))
        blocks = math.prod(x.shape[:at]) * inner if count else 0
        launch(context, source, "top", blocks, THREADS, [*arguments, values.array, places.array])
        return values, places

    return [top_k]


def sources() -> list[str]:
    """Every source that these kernels launch."""
    types = dict.fromkeys(stored(np.dtype(name) if name != "bfloat16" else name) for name in sorted(NUMBERS))
    return [top_source(t, largest=largest) for t in types for largest in (True, False)]
