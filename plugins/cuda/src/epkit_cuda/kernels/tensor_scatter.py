"""TensorScatter: a cache with new steps in it, each item's at its own place; one kernel, which a graph can hold.

The device checks the places; the host hears of a wrong one when it synchronises.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from epkit.backend import Kernel, RunContext, element_type, kernel

from ..launch import dense, launch, stream_of
from ..memory import Tensor
from ..source import PRELUDE
from .formulas import ANY
from .indexing import BLOCK, GRID, MOVED
from .rows import axis_of, output


def place_source(width: int, *, circular: bool) -> str:
    """out[b, o, j, :] = update[b, o, j - starts[b], :] where there is such a step, else past[b, o, j, :].

    Args:
        width: bytes that are moved at once.
        circular: places count modulo the length.
    """
    step = "((j - start) % length + length) % length" if circular else "j - start"
    check = "" if circular else "if (start < 0 || start > length - steps) { atomicOr(fault, 1); continue; }"
    return f"""{PRELUDE}
typedef {MOVED[width]} T;
extern "C" __global__ void place(long long n, long long each, long long length, long long steps, long long inner,
    const T* __restrict__ past, const T* __restrict__ update, const long long* __restrict__ starts,
    T* __restrict__ out, int* fault) {{
  const long long threads = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += threads) {{
    const long long j = i / inner % length, o = i / inner / length, start = starts ? starts[o / each] : 0;
    {check}
    const long long s = {step};
    out[i] = s >= 0 && s < steps ? update[(o * steps + s) * inner + i % inner] : past[i];
  }}
}}
"""


def widest(inner: int, each: int, arrays: list[Any]) -> int:
    """Bytes that can be moved at once where ``inner`` elements of ``each`` bytes are dense."""
    widths = [width for width in sorted(MOVED, reverse=True) if width >= each]
    fits = (w for w in widths if inner * each % w == 0 and all(array.data.ptr % w == 0 for array in arrays))
    return next(fits, each)


def takes(node: Any) -> bool | str:
    """Every element type is moved as it is."""
    kind = element_type(node.inputs[0])
    return kind in ANY or f"the kernel moves {sorted(ANY)}, found {kind or 'an unknown type'}"


@kernel("TensorScatter", since=24, when=takes)
def tensor_scatter(
    past: Tensor,
    update: Tensor,
    starts: Tensor | None = None,
    *,
    axis: int = -2,
    mode: str = "linear",
    context: RunContext,
    node: Any,
) -> Tensor:
    """The cache with item b's update from ``starts[b]`` on along the axis.

    Raises:
        ValueError: if the shapes do not fit.
    """
    at = axis_of(axis, past.ndim)
    steps, length = update.shape[at] if update.ndim > at else 0, past.shape[at]
    if at == 0 or update.shape != (*past.shape[:at], steps, *past.shape[at + 1 :]) or steps > length:
        raise ValueError(f"update {update.shape} does not fit cache {past.shape} along axis {at}")
    if starts is not None and starts.shape != past.shape[:1]:
        raise ValueError(f"write_indices {starts.shape} should have one number for each of {past.shape[0]}")
    out = output(context, node, past)
    inner, each = math.prod(past.shape[at + 1 :]), past.dtype.itemsize
    arrays = [dense(context, past), dense(context, update), out.array]
    width = widest(inner, each, arrays)
    inner = inner * each // width
    count = math.prod(past.shape[: at + 1]) * inner
    sizes = map(np.int64, (count, math.prod(past.shape[1:at]), length, steps, inner))
    first = np.uint64(0) if starts is None else dense(context, starts)
    fault = stream_of(context).fault(str(node.name))
    source = place_source(width, circular=mode == "circular")
    grid = min(GRID, -(-count // BLOCK))
    launch(context, source, "place", grid, BLOCK, [*sizes, *arrays[:2], first, arrays[2], fault])
    return out


KERNELS: tuple[Kernel, ...] = (tensor_scatter,)


def sources() -> list[str]:
    """Every source that this kernel launches."""
    return [place_source(width, circular=circular) for width in MOVED for circular in (False, True)]
