"""Operators whose indices are data: Gather and Scatter in their forms, Trilu, CumSum, Range, OneHot."""

from __future__ import annotations

import math
from typing import Any

from epkit.backend import RunContext, kernel

from ..launch import c_type, download, empty, launch, pragma
from ..memory import Tensor
from ..strides import contiguous
from .formulas import ANY, NUMBERS
from .movement import GROUP, copy, fresh
from .views import whole_axes

INDICES = frozenset({"int32", "int64"})
GATHERED = {"T": ANY, "Tind": INDICES}


def rows(count: int) -> tuple[list[int], list[int]]:
    """A one-dimensional range of so many work-items, in groups."""
    return [-(-count // GROUP) * GROUP], [GROUP]


def bits_of(tensor: Tensor) -> str:
    """An unsigned type as wide as the elements."""
    return {1: "uchar", 2: "ushort", 4: "uint", 8: "ulong"}[tensor.dtype.itemsize]


def checked(context: RunContext, indices: Tensor, size: int) -> None:
    """Indices that the host knows are checked there; others are clamped on the device."""
    if (
        indices.host is not None
        and indices.size
        and not (-size <= int(indices.host.min()) and int(indices.host.max()) < size)
    ):
        raise ValueError(f"an index is outside [-{size}, {size - 1}]")


@kernel("Gather", types=GATHERED)
def gather(data: Tensor, indices: Tensor, *, axis: int = 0, context: RunContext, node: Any) -> Tensor:
    """Slices along an axis, by index."""
    (at,) = whole_axes([axis], data.ndim)
    checked(context, indices, data.shape[at])
    shape = (*data.shape[:at], *indices.shape, *data.shape[at + 1 :])
    out = fresh(context, node, shape, data)
    inner = math.prod(data.shape[at + 1 :])
    source = f"""
__kernel void gather(const int n, const int picked, const int size, const int inner,
                     __global const {bits_of(data)}* p, const long op,
                     __global const {c_type(indices.dtype)}* k, const long ok,
                     __global {bits_of(data)}* q, const long oq) {{
  const int i = get_global_id(0);
  if (i >= n) return;
  const int c = i % inner, j = i / inner % picked, a = i / inner / picked;
  int at = (int)k[ok + j];
  at = clamp(at < 0 ? at + size : at, 0, size - 1);
  q[oq + i] = p[op + ((long)a * size + at) * inner + c];
}}
"""
    if data.shape[at]:
        size, group = rows(out.size)
        arguments = [out.size, max(1, indices.size), data.shape[at], max(1, inner), data, indices, out]
        launch(context, source, "gather", size if out.size else [0], arguments, group=group)
    return out


def taken_apart(rank: int, name: str = "c") -> str:
    """Code that takes the index i apart into coordinates by the sizes d0, d1, ..."""
    lines = ["int rest = i;"]
    for axis in reversed(range(rank)):
        lines.append(
            f"const int {name}{axis} = " + ("rest;" if axis == 0 else f"rest % d{axis}; rest /= d{axis};")
        )
    return "\n  ".join(lines)


@kernel("GatherElements", since=11, types=GATHERED)
def gather_elements(
    data: Tensor, indices: Tensor, *, axis: int = 0, context: RunContext, node: Any
) -> Tensor:
    """out[i] = data[i with its coordinate along ``axis`` replaced by indices[i]]."""
    (at,) = whole_axes([axis], data.ndim)
    checked(context, indices, data.shape[at])
    out = fresh(context, node, indices.shape, data)
    rank = data.ndim
    where = " + ".join(f"{'at' if k == at else f'c{k}'} * s{k}" for k in range(rank))
    sizes = "".join(f", const int d{k}" for k in range(rank)) + "".join(
        f", const int s{k}" for k in range(rank)
    )
    source = f"""
__kernel void pick(const int n, const int size, __global const {bits_of(data)}* p, const long op,
                   __global const {c_type(indices.dtype)}* k, const long ok,
                   __global {bits_of(data)}* q, const long oq{sizes}) {{
  const int i = get_global_id(0);
  if (i >= n) return;
  {taken_apart(rank)}
  int at = (int)k[ok + i];
  at = clamp(at < 0 ? at + size : at, 0, size - 1);
  q[oq + i] = p[op + {where}];
}}
"""
    size, group = rows(out.size)
    arguments = [out.size, data.shape[at], data, indices, out, *indices.shape, *contiguous(data.shape)]
    launch(context, source, "pick", size if out.size else [0], arguments, group=group)
    return out


@kernel("GatherND", since=12, types=GATHERED)
def gather_nd(
    data: Tensor, indices: Tensor, *, batch_dims: int = 0, context: RunContext, node: Any
) -> Tensor:
    """Slices by index tuples."""
    depth = indices.shape[-1]
    batch, picked = math.prod(data.shape[:batch_dims]), data.shape[batch_dims : batch_dims + depth]
    shape = (*indices.shape[:-1], *data.shape[batch_dims + depth :])
    out = fresh(context, node, shape, data)
    inner = math.prod(data.shape[batch_dims + depth :])
    tuples = math.prod(indices.shape[batch_dims:-1])
    steps = "".join(
        f"{{ int t = (int)k[ok + (long)row * {depth} + {j}]; t = clamp(t < 0 ? t + {n} : t, 0, {n} - 1);"
        f" at = at * {n} + t; }}\n  "
        for j, n in enumerate(picked)
    )
    source = f"""
__kernel void pick(const int n, const int inner, const int tuples,
                   __global const {bits_of(data)}* p, const long op,
                   __global const {c_type(indices.dtype)}* k, const long ok,
                   __global {bits_of(data)}* q, const long oq) {{
  const int i = get_global_id(0);
  if (i >= n) return;
  const int c = i % inner, row = i / inner;
  long at = row / tuples;
  {steps}q[oq + i] = p[op + at * inner + c];
}}
"""
    size, group = rows(out.size)
    arguments = [out.size, max(1, inner), max(1, tuples), data, indices, out]
    launch(context, source, "pick", size if out.size and batch and data.size else [0], arguments, group=group)
    return out


REDUCED = "reductions are add, max and min of integers, by atomics; of int64 where the device has them"


def without_reduction(node: Any) -> bool | str:
    """Plain writes: the last one wins where indices repeat, so these are done in order by one work-item."""
    reduction = node.attributes.get("reduction")
    return reduction is None or reduction.value == "none" or REDUCED


@kernel("ScatterND", since=11, types={"T": ANY}, when=without_reduction)
def scatter_nd(
    data: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none", context: RunContext, node: Any
) -> Tensor:
    """A copy of the data with slices replaced, by index tuples."""
    out = fresh(context, node, data.shape, data)
    copy(context, data, out, data.shape, contiguous(data.shape), contiguous(data.shape))
    depth = indices.shape[-1]
    inner, tuples = math.prod(data.shape[depth:]), math.prod(indices.shape[:-1])
    steps = "".join(
        f"{{ int t = (int)k[ok + (long)row * {depth} + {j}]; t = clamp(t < 0 ? t + {n} : t, 0, {n} - 1);"
        f" at = at * {n} + t; }}\n    "
        for j, n in enumerate(data.shape[:depth])
    )
    source = f"""
__kernel void put(const int inner, const int tuples, __global const {bits_of(data)}* u, const long ou,
                  __global const long* k, const long ok, __global {bits_of(data)}* q, const long oq) {{
  const int c = get_global_id(0);
  if (c >= inner) return;
  for (int row = 0; row < tuples; row++) {{
    long at = 0;
    {steps}q[oq + at * inner + c] = u[ou + (long)row * inner + c];
  }}
}}
"""
    if updates.size and data.size:
        size, group = rows(inner)
        launch(context, source, "put", size, [inner, tuples, updates, indices, out], group=group)
    return out


@kernel("ScatterElements", since=11, types=GATHERED, when=without_reduction)
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
    """A copy of the data with single elements replaced along an axis."""
    (at,) = whole_axes([axis], data.ndim)
    out = fresh(context, node, data.shape, data)
    copy(context, data, out, data.shape, contiguous(data.shape), contiguous(data.shape))
    rank = data.ndim
    order = [k for k in range(rank) if k != at]
    lines = ["int rest = get_global_id(0);", "if (rest >= lines) return;"]
    for k in reversed(order):
        lines.append(f"const int c{k} = rest % d{k}; rest /= d{k};")
    where = " + ".join(f"{'t' if k == at else f'c{k}'} * s{k}" for k in range(rank))
    source_of = " + ".join(f"c{k} * u{k}" for k in range(rank))
    sizes = "".join(f", const int {letter}{k}" for letter in "dsu" for k in range(rank))
    source = f"""
__kernel void put(const int lines, const int size, __global const {bits_of(data)}* v, const long ov,
                  __global const {c_type(indices.dtype)}* k, const long ok,
                  __global {bits_of(data)}* q, const long oq{sizes}) {{
  {"  ".join(lines)}
  for (int c{at} = 0; c{at} < d{at}; c{at}++) {{
    const long j = {source_of};
    int t = (int)k[ok + j];
    t = clamp(t < 0 ? t + size : t, 0, size - 1);
    q[oq + {where}] = v[ov + j];
  }}
}}
"""
    if indices.size and data.size:
        count = indices.size // max(1, indices.shape[at])
        size, group = rows(count)
        shapes = [*indices.shape, *contiguous(data.shape), *contiguous(indices.shape)]
        launch(
            context, source, "put", size, [count, data.shape[at], updates, indices, out, *shapes], group=group
        )
    return out


@kernel("Trilu", since=14, types={"T": ANY})
def trilu(x: Tensor, k: Tensor | None = None, *, upper: int = 1, context: RunContext, node: Any) -> Tensor:
    """One triangle of each matrix; 0 elsewhere."""
    out = fresh(context, node, x.shape, x)
    diagonal = 0 if k is None else int(download(context, k).reshape(-1)[0])
    test = "c - r >= k" if upper else "c - r <= k"
    source = f"""
__kernel void trilu(const int n, const int height, const int width, const int k,
                    __global const {bits_of(x)}* p, const long op, __global {bits_of(x)}* q, const long oq) {{
  const int i = get_global_id(0);
  if (i >= n) return;
  const int c = i % width, r = i / width % height;
  q[oq + i] = {test} ? p[op + i] : 0;
}}
"""
    height, width = x.shape[-2:]
    bound = max(-(2**30), min(2**30, diagonal))
    size, group = rows(x.size)
    launch(
        context, source, "trilu", size if x.size else [0], [x.size, height, width, bound, x, out], group=group
    )
    return out


@kernel("CumSum", since=11, types={"T": NUMBERS})
def cum_sum(
    x: Tensor, axis: Tensor, *, exclusive: int = 0, reverse: int = 0, context: RunContext, node: Any
) -> Tensor:
    """Running sums along an axis."""
    (at,) = whole_axes([int(download(context, axis).reshape(-1)[0])], x.ndim)
    out = fresh(context, node, x.shape, x)
    t = c_type(x.dtype)
    step = "s = s + v; q[oq + at] = s;" if not exclusive else "q[oq + at] = s; s = s + v;"
    source = f"""{pragma([t])}
__kernel void sums(const int lines, const int size, const int inner, __global const {t}* p, const long op,
                   __global {t}* q, const long oq) {{
  const int i = get_global_id(0);
  if (i >= lines) return;
  const long start = (long)(i / inner) * size * inner + i % inner;
  {t} s = 0;
  for (int j = 0; j < size; j++) {{
    const long at = start + (long){"(size - 1 - j)" if reverse else "j"} * inner;
    const {t} v = p[op + at];
    {step}
  }}
}}
"""
    inner = math.prod(x.shape[at + 1 :])
    lines = x.size // max(1, x.shape[at])
    size, group = rows(lines)
    launch(
        context,
        source,
        "sums",
        size if x.size else [0],
        [lines, x.shape[at], max(1, inner), x, out],
        group=group,
    )
    return out


@kernel("Range", since=11, types={"T": frozenset({"float32", "float64", "int16", "int32", "int64"})})
def range_(start: Tensor, limit: Tensor, delta: Tensor, *, context: RunContext, node: Any) -> Tensor:
    """start, start + delta, ... below the limit."""
    first, last, step = (download(context, item).reshape(-1)[0] for item in (start, limit, delta))
    if step == 0:
        raise ValueError("delta is 0")
    count = max(0, math.ceil((float(last) - float(first)) / float(step)))
    out: Tensor = empty(context, node.outputs[0], (count,), start.dtype)
    t = c_type(start.dtype)
    source = f"""{pragma([t])}
__kernel void count(const int n, const {t} first, const {t} step, __global {t}* q, const long oq) {{
  const int i = get_global_id(0);
  if (i < n) q[oq + i] = first + ({t})i * step;
}}
"""
    size, group = rows(count)
    launch(context, source, "count", size if count else [0], [count, first, step, out], group=group)
    return out


@kernel("OneHot", since=9, types={"T1": NUMBERS, "T2": NUMBERS, "T3": ANY})
def one_hot(
    indices: Tensor, depth: Tensor, values: Tensor, *, axis: int = -1, context: RunContext, node: Any
) -> Tensor:
    """values[1] where the coordinate along a new axis equals the index, values[0] elsewhere."""
    classes = int(download(context, depth).reshape(-1)[0])
    (at,) = whole_axes([axis], indices.ndim + 1)
    shape = (*indices.shape[:at], classes, *indices.shape[at:])
    out: Tensor = empty(context, node.outputs[0], shape, values.dtype)
    inner, v, k = math.prod(indices.shape[at:]), bits_of(values), c_type(indices.dtype)
    source = f"""{pragma([k])}
__kernel void one_hot(const int n, const int classes, const int inner, __global const {k}* k, const long ok,
                      __global const {v}* v, const long ov, __global {v}* q, const long oq) {{
  const int i = get_global_id(0);
  if (i >= n) return;
  const int c = i % inner, j = i / inner % classes, a = i / inner / classes;
  long at = (long)k[ok + (long)a * inner + c];
  at = at < 0 ? at + classes : at;
  q[oq + i] = v[ov + (at == j ? 1 : 0)];
}}
"""
    size, group = rows(out.size)
    launch(
        context,
        source,
        "one_hot",
        size if out.size else [0],
        [out.size, classes, max(1, inner), indices, values, out],
        group=group,
    )
    return out


KERNELS = (
    gather, gather_elements, gather_nd, scatter_nd, scatter_elements, trilu, cum_sum, range_, one_hot,
)  # fmt: skip
