"""Scatter with a reduction, of integers: all updates at once, by atomics. In integers the order makes no difference,
so that results are the same in every run; sums of floats would not be.
"""

from __future__ import annotations

import math
from typing import Any

from epkit.backend import RunContext, kernel

from ..launch import c_type, launch
from ..memory import Tensor
from ..strides import contiguous
from .indexing import INDICES, rows, taken_apart
from .movement import copy, fresh
from .views import whole_axes

TYPES = {"T": frozenset({"int32", "int64"}), "Tind": INDICES}
REDUCTIONS = ("add", "max", "min")

HEADER = """#pragma OPENCL EXTENSION cl_khr_int64_base_atomics : enable
#pragma OPENCL EXTENSION cl_khr_int64_extended_atomics : enable
"""


def with_reduction(node: Any) -> bool | str:
    """What there are atomics for."""
    reduction = node.attributes.get("reduction")
    if reduction is None or reduction.value not in REDUCTIONS:
        return f"there are atomics for the reductions {', '.join(REDUCTIONS)}"
    return True


def _begin(data: Tensor, reduction: str) -> tuple[str, str, str]:
    """The header of a program, the element's type, the atomic function of its width."""
    t = c_type(data.dtype)
    return (HEADER, t, f"atom_{reduction}") if t == "long" else ("", t, f"atomic_{reduction}")


@kernel("ScatterND", since=16, types={"T": TYPES["T"]}, when=with_reduction)
def scatter_nd(
    data: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none", context: RunContext, node: Any
) -> Tensor:
    """A copy of the data with slices reduced into it, by index tuples."""
    out = fresh(context, node, data.shape, data)
    copy(context, data, out, data.shape, contiguous(data.shape), contiguous(data.shape))
    depth = indices.shape[-1]
    header, t, atomic = _begin(data, reduction)
    steps = "".join(
        f"{{ int t = (int)k[ok + (long)(i / inner) * {depth} + {j}];"
        f" t = clamp(t < 0 ? t + {n} : t, 0, {n} - 1); at = at * {n} + t; }}\n  "
        for j, n in enumerate(data.shape[:depth])
    )
    source = f"""{header}
__kernel void reduce_into(const int n, const int inner, __global const {t}* u, const long ou,
                          __global const long* k, const long ok, __global {t}* q, const long oq) {{
  const int i = get_global_id(0);
  if (i >= n) return;
  long at = 0;
  {steps}{atomic}(q + oq + at * inner + i % inner, u[ou + i]);
}}
"""
    if updates.size and data.size:
        size, group = rows(updates.size)
        arguments = [updates.size, math.prod(data.shape[depth:]), updates, indices, out]
        launch(context, source, "reduce_into", size, arguments, group=group)
    return out


@kernel("ScatterElements", since=16, types=TYPES, when=with_reduction)
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
    """A copy of the data with single elements reduced into it along an axis."""
    (at,) = whole_axes([axis], data.ndim)
    out = fresh(context, node, data.shape, data)
    copy(context, data, out, data.shape, contiguous(data.shape), contiguous(data.shape))
    header, t, atomic = _begin(data, reduction)
    rank = data.ndim
    where = " + ".join(f"(long){'t' if k == at else f'c{k}'} * s{k}" for k in range(rank))
    sizes = "".join(f", const int {letter}{k}" for letter in "ds" for k in range(rank))
    source = f"""{header}
__kernel void reduce_into(const int n, const int size, __global const {t}* u, const long ou,
                          __global const {c_type(indices.dtype)}* k, const long ok,
                          __global {t}* q, const long oq{sizes}) {{
  const int i = get_global_id(0);
  if (i >= n) return;
  {taken_apart(rank)}
  int t = (int)k[ok + i];
  t = clamp(t < 0 ? t + size : t, 0, size - 1);
  {atomic}(q + oq + {where}, u[ou + i]);
}}
"""
    if indices.size and data.size:
        size, group = rows(indices.size)
        arguments = [indices.size, data.shape[at], updates, indices, out]
        arguments += [*indices.shape, *contiguous(data.shape)]
        launch(context, source, "reduce_into", size, arguments, group=group)
    return out


KERNELS = (scatter_nd, scatter_elements)
