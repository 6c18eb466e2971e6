"""ScatterElements and ScatterND: a copy of the data, then one thread for each update.

Sums of floats have no fixed order, and those of 16 bits are rounded after each update. The device checks the indices;
the host hears of a wrong one when it synchronises.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from epkit.backend import Kernel, RunContext, element_type, kernel
from epkit.kernels.attributes import attribute_values

from ..launch import dense, launch, stream_of
from ..memory import Tensor
from ..source import PRELUDE, stored
from .formulas import ANY
from .indexing import BLOCK, GRID, MOVED
from .rows import axis_of, output

JOINS = {"add": "Sum", "mul": "Product", "max": "Top", "min": "Low"}
"""What becomes of an old and a new value, by the attribute ``reduction``."""

WORDS = {2: "unsigned short", 4: "unsigned int", 8: "unsigned long long"}
REDUCED = frozenset({"float16", "bfloat16", "float32", "float64", "int32", "uint32", "int64", "uint64"})
"""Element types that the hardware exchanges as a whole."""

DEEPEST = 8
"""Axes at most."""


def _writes(kind: str, reduction: str) -> str:
    """Types, and how an update is put where it belongs."""
    if reduction == "none":
        return f"typedef {kind} T;\n__device__ inline void put(T* at, T value) {{ *at = value; }}"
    each = {"f16": 2, "bf16": 2, "float": 4, "double": 8, "int": 4, "unsigned int": 4}.get(kind, 8)
    return f"""typedef {kind} T; typedef {WORDS[each]} Word;
union Both {{ T value; Word bits; }};
__device__ inline void put(T* at, T value) {{
  Both seen, wanted;
  seen.value = *at;
  for (;;) {{
    wanted.value = stored_as<T>({JOINS[reduction]}()(widen(seen.value), widen(value)));
    const Word found = atomicCAS((Word*)at, seen.bits, wanted.bits);
    if (found == seen.bits) return;
    seen.bits = found;
  }}
}}"""


def elements_source(kind: str, index: str, rank: int, reduction: str) -> str:
    """out[place of i, its coordinate along the axis being indices[i]] = updates[i]."""
    sizes = "".join(f", long long n{axis}, long long s{axis}" for axis in range(rank))
    walk = "\n    ".join(
        f"at += (axis == {axis} ? found : rest % n{axis}) * s{axis}; rest /= n{axis};"
        for axis in reversed(range(rank))
    )
    return f"""{PRELUDE}
{_writes(kind, reduction)}
extern "C" __global__ void scatter(long long n, int axis, long long size{sizes},
    const {index}* __restrict__ indices, const T* __restrict__ updates, T* out, int* fault) {{
  const long long threads = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += threads) {{
    long long found = indices[i], rest = i, at = 0;
    if (found < 0) found += size;
    if (found < 0 || found >= size) {{ atomicOr(fault, 1); continue; }}
    {walk}
    put(out + at, updates[i]);
  }}
}}
"""


def tuples_source(kind: str, depth: int, reduction: str) -> str:
    """out[indices[r], j] = updates[r, j] for tuples of ``depth`` indices."""
    sizes = "".join(f", long long n{axis}" for axis in range(depth))
    walk = "\n    ".join(
        f"""{{ long long found = indices[row * {depth} + {axis}];
      if (found < 0) found += n{axis};
      wrong |= found < 0 || found >= n{axis};
      at = at * n{axis} + found; }}"""
        for axis in range(depth)
    )
    return f"""{PRELUDE}
{_writes(kind, reduction)}
extern "C" __global__ void scatter(long long n, long long inner{sizes},
    const long long* __restrict__ indices, const T* __restrict__ updates, T* out, int* fault) {{
  const long long threads = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += threads) {{
    const long long row = i / inner;
    long long at = 0;
    bool wrong = false;
    {walk}
    if (wrong) atomicOr(fault, 1);
    else put(out + at * inner + i % inner, updates[i]);
  }}
}}
"""


def takes(node: Any) -> bool | str:
    """Every element type as it is; sums and the like of whole words."""
    reduction, kind = attribute_values(node).get("reduction", "none"), element_type(node.inputs[0])
    if reduction not in ("none", *JOINS):
        return f"reduction is {reduction!r}, the kernel knows none, {', '.join(JOINS)}"
    known = REDUCED if reduction != "none" else ANY
    if kind not in known:
        return f"reduction {reduction!r} of {kind or 'an unknown type'}: the kernel takes {sorted(known)}"
    rank = len(node.inputs[0].shape or ())
    return rank <= DEEPEST or f"data has {rank} axes, the kernel takes {DEEPEST}"


def written(data: Tensor, reduction: str) -> str:
    """The C++ type that updates are moved, or computed, in."""
    return MOVED[data.dtype.itemsize] if reduction == "none" else stored(data.dtype)


def copied(context: RunContext, node: Any, data: Tensor) -> Tensor:
    """The result before any update."""
    out, stream = output(context, node, data), stream_of(context)
    if data.size:
        stream.machine.copy(stream.dense(data.array), out.array, stream.raw)
    return out


def scatter_elements_of(name: str, since: int, until: int | None) -> Kernel:
    """ScatterElements, and its first name."""

    @kernel(name, since=since, until=until, types={"Tind": {"int32", "int64"}}, when=takes)
    def scatter_elements(
        data: Tensor,
        indices: Tensor,
        updates: Tensor,
        *,
        axis: int = 0,
        reduction: str = "none",
        context: RunContext,
        node: Any,
    ) -> Tensor:
        """Updates go where they are, but for the coordinate along the axis."""
        at = axis_of(axis, data.ndim)
        inside = all(
            a <= b for i, (a, b) in enumerate(zip(indices.shape, data.shape, strict=False)) if i != at
        )
        if updates.shape != indices.shape or indices.ndim != data.ndim or not inside:
            raise ValueError(
                f"indices {indices.shape} and updates {updates.shape} do not fit data {data.shape} along axis {at}"
            )
        out = copied(context, node, data)
        steps = [math.prod(data.shape[i + 1 :]) for i in range(data.ndim)]
        pairs = [np.int64(n) for pair in zip(indices.shape, steps, strict=True) for n in pair]
        index = "int" if indices.dtype.itemsize == 4 else "long long"
        source = elements_source(written(data, reduction), index, data.ndim, reduction)
        numbers = [np.int64(indices.size), np.int32(at), np.int64(data.shape[at]), *pairs]
        _launch(context, node, source, numbers, indices, updates, out)
        return out

    return scatter_elements


@kernel("ScatterND", since=11, when=takes)
def scatter_nd(
    data: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none", context: RunContext, node: Any
) -> Tensor:
    """Updates go to the places that tuples of indices say."""
    depth = indices.shape[-1] if indices.ndim else 0
    if not 0 < depth <= data.ndim or updates.shape != (*indices.shape[:-1], *data.shape[depth:]):
        raise ValueError(f"indices {indices.shape} and updates {updates.shape} do not fit data {data.shape}")
    out = copied(context, node, data)
    source = tuples_source(written(data, reduction), depth, reduction)
    inner = math.prod(data.shape[depth:])
    numbers = [np.int64(updates.size), np.int64(max(1, inner)), *map(np.int64, data.shape[:depth])]
    _launch(context, node, source, numbers, indices, updates, out)
    return out


def _launch(
    context: RunContext,
    node: Any,
    source: str,
    numbers: list[Any],
    indices: Tensor,
    updates: Tensor,
    out: Tensor,
) -> None:
    fault = stream_of(context).fault(str(node.name))
    arguments = [*numbers, dense(context, indices), dense(context, updates), out.array, fault]
    launch(context, source, "scatter", min(GRID, -(-updates.size // BLOCK)), BLOCK, arguments)


KERNELS: tuple[Kernel, ...] = (
    scatter_elements_of("Scatter", 9, 10),
    scatter_elements_of("ScatterElements", 11, None),
    scatter_nd,
)


def sources() -> list[str]:
    """Every source that these kernels launch, for up to three axes."""
    kinds = [(kind, "none") for kind in MOVED.values()]
    kinds += [(stored(name), reduction) for name in sorted(REDUCED) for reduction in JOINS]
    return [
        *(elements_source(*pair[:1], index, rank, pair[1]) for pair in kinds for index in ("int", "long long")
          for rank in (1, 3)),
        *(tuples_source(kind, depth, reduction) for kind, reduction in kinds for depth in (1, 3)),
    ]  # fmt: skip
