"""Gather: rows of a table. The device checks the indices; the host hears of a wrong one when it synchronises."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from epkit.backend import Kernel, RunContext, kernel

from ..launch import dense, launch, stream_of
from ..memory import Tensor
from ..source import PRELUDE
from .formulas import ANY
from .rows import axis_of, output

BLOCK = 256
GRID = 1 << 16
MOVED = {1: "unsigned char", 2: "unsigned short", 4: "unsigned int", 8: "unsigned long long"}
"""C++ types by size: elements are moved, not computed with."""


def gather_source(each: int, index: str) -> str:
    """out[o, i, n] = data[o, indices[i], n]."""
    return f"""{PRELUDE}
typedef {MOVED[each]} T;
extern "C" __global__ void gather(long long n, long long size, long long inner, long long count,
    const T* __restrict__ data, const {index}* __restrict__ indices, T* __restrict__ out, int* fault) {{
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x) {{
    const long long row = i / inner, outer = row / count;
    long long at = indices[row % count];
    if (at < 0) at += size;
    if (at < 0 || at >= size) atomicOr(fault, 1);
    else out[i] = data[(outer * size + at) * inner + i % inner];
  }}
}}
"""


@kernel("Gather", types={"T": ANY, "Tind": {"int32", "int64"}})
def gather(data: Tensor, indices: Tensor, *, axis: int = 0, context: RunContext, node: Any) -> Tensor:
    """Slices of data along the axis, in the shape of the indices."""
    at = axis_of(axis, data.ndim)
    before, after = data.shape[:at], data.shape[at + 1 :]
    out = output(context, node, data, (*before, *indices.shape, *after))
    source = gather_source(data.dtype.itemsize, "int" if indices.dtype.itemsize == 4 else "long long")
    sizes = map(np.int64, (out.size, data.shape[at], math.prod(after), indices.size))
    fault = stream_of(context).fault(str(node.name))
    arguments = [*sizes, dense(context, data), dense(context, indices), out.array, fault]
    launch(context, source, "gather", min(GRID, -(-out.size // BLOCK)), BLOCK, arguments)
    return out


KERNELS: tuple[Kernel, ...] = (gather,)


def sources() -> list[str]:
    """Every source that these kernels launch."""
    return [gather_source(each, index) for each in MOVED for index in ("int", "long long")]
