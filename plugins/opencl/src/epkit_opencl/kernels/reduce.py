"""Reductions: a work-item for each result walks along the reduced axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from epkit.backend import Kernel, RunContext, kernel

from ..launch import c_type, download, empty, launch, pragma
from ..memory import Tensor
from ..strides import collapsed, contiguous
from .formulas import FLOATS
from .indexing import rows
from .movement import fresh
from .views import whole_axes

TYPES = frozenset({"float32", "float64", "int32", "int64"})

REDUCTIONS = {
    "ReduceSum": ("0", "s += v;", "s"),
    "ReduceMean": ("0", "s += v;", "s / count"),
    "ReduceMax": ("LOWEST", "s = v != v || v > s ? v : s;", "s"),
    "ReduceMin": ("HIGHEST", "s = v != v || v < s ? v : s;", "s"),
    "ReduceProd": ("1", "s *= v;", "s"),
    "ReduceL1": ("0", "s += v < 0 ? -v : v;", "s"),
    "ReduceL2": ("0", "s += v * v;", "ROOT(s)"),
    "ReduceSumSquare": ("0", "s += v * v;", "s"),
    "ReduceLogSum": ("0", "s += v;", "log(s)"),
    "ReduceLogSumExp": ("0", "s += exp(v - top);", "log(s) + top"),
}
"""Start, step for an element v, end."""

FLOAT_ONLY = ("ReduceLogSum", "ReduceLogSumExp", "ReduceL2", "ReduceMean")


def reduced(
    context: RunContext, node: Any, name: str, x: Tensor, axes: Sequence[int] | None, keepdims: int
) -> Tensor:
    """One result for each place along the other axes."""
    gone = list(range(x.ndim)) if axes is None else whole_axes(axes, x.ndim)
    shape = [1 if axis in gone else size for axis, size in enumerate(x.shape)]
    out = fresh(context, node, shape if keepdims else [n for a, n in enumerate(shape) if a not in gone], x)
    own = contiguous(x.shape)
    kept = [axis for axis in range(x.ndim) if axis not in gone]
    outer, (walk,) = collapsed([x.shape[a] for a in kept], [[own[a] for a in kept]])
    inner, (step,) = collapsed([x.shape[a] for a in gone], [[own[a] for a in gone]])
    count = math.prod(x.shape[a] for a in gone)
    source = _source(name, c_type(x.dtype), len(outer), len(inner))
    size, group = rows(out.size)
    arguments = [out.size, count, x, out, *outer, *walk, *inner, *step]
    launch(context, source, "reduce", size if out.size else [0], arguments, group=group)
    return out


def _walk(rank: int, index: str, sizes: str, strides: str, target: str) -> str:
    lines = [f"int rest = {index};"]
    for axis in reversed(range(rank)):
        coordinate = "rest" if axis == 0 else f"rest % {sizes}{axis}"
        step = "" if axis == 0 else f" rest /= {sizes}{axis};"
        lines.append(f"{target} += (long)({coordinate}) * {strides}{axis};{step}")
    return "{ " + " ".join(lines) + " }"


def _source(name: str, t: str, outer: int, inner: int) -> str:
    start, step, end = REDUCTIONS[name]
    low = {"float": "-INFINITY", "double": "-INFINITY", "int": "INT_MIN", "long": "LONG_MIN"}[t]
    high = {"float": "INFINITY", "double": "INFINITY", "int": "INT_MAX", "long": "LONG_MAX"}[t]
    sizes = "".join(
        f", const int {letter}{axis}"
        for letter, rank in (("d", outer), ("w", outer), ("e", inner), ("x", inner))
        for axis in range(rank)
    )
    element = f"long at = base; {_walk(inner, 'j', 'e', 'x', 'at')} const {t} v = p[at];"
    top = ""
    if "top" in step:
        top = (
            f"{t} top = -INFINITY; for (int j = 0; j < count; j++) {{ {element} top = v != v || v > top ? v : top; }} "
            "top = isinf(top) || top != top ? (top > 0 || top != top ? top : 0) : top; "
            "if (isinf(top) || top != top) { q[oq + i] = top; return; }"
        )
    return f"""{pragma([t])}
#define LOWEST {low}
#define HIGHEST {high}
#define ROOT(x) (({t})sqrt({"(double)" if t in ("double", "int", "long") else ""}x))
__kernel void reduce(const int n, const int count, __global const {t}* p, const long op,
                     __global {t}* q, const long oq{sizes}) {{
  const int i = get_global_id(0);
  if (i >= n) return;
  long base = op;
  {_walk(outer, "i", "d", "w", "base")}
  {top}
  {t} s = {start};
  for (int j = 0; j < count; j++) {{ {element} {step} }}
  q[oq + i] = {end};
}}
"""


def declare(name: str) -> list[Kernel]:
    """Both forms: axes as an attribute, and since opset 18 (ReduceSum: 13) as an input."""
    types = {"T": FLOATS if name in FLOAT_ONLY else TYPES}
    moved = 13 if name == "ReduceSum" else 18

    @kernel(name, until=moved - 1, types=types)
    def by_attribute(
        x: Tensor, *, axes: Sequence[int] | None = None, keepdims: int = 1, context: RunContext, node: Any
    ) -> Tensor:
        return reduced(context, node, name, x, axes, keepdims)

    @kernel(name, since=moved, types=types)
    def by_input(
        x: Tensor,
        axes: Tensor | None = None,
        *,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
        context: RunContext,
        node: Any,
    ) -> Tensor:
        given = None if axes is None else [int(a) for a in download(context, axes).reshape(-1)]
        if not given and noop_with_empty_axes:
            return reduced(context, node, name, x, [], 1)
        return reduced(context, node, name, x, given or None, keepdims)

    return [by_attribute, by_input]


def arg_of(name: str, better: str) -> Kernel:
    """The place of the largest or smallest element along an axis."""

    @kernel(name, types={"T": TYPES})
    def found(
        x: Tensor,
        *,
        axis: int = 0,
        keepdims: int = 1,
        select_last_index: int = 0,
        context: RunContext,
        node: Any,
    ) -> Tensor:
        (at,) = whole_axes([axis], x.ndim)
        if not x.shape[at]:
            raise ValueError(f"axis {axis} of shape {x.shape} is empty")
        shape = [*x.shape[:at], *([1] if keepdims else []), *x.shape[at + 1 :]]
        out: Tensor = empty(context, node.outputs[0], tuple(shape), np.dtype(np.int64))
        t, sign = c_type(x.dtype), better + ("=" if select_last_index else "")
        source = f"""{pragma([t])}
__kernel void arg(const int n, const int size, const int inner, __global const {t}* p, const long op,
                  __global long* q, const long oq) {{
  const int i = get_global_id(0);
  if (i >= n) return;
  const long start = op + (long)(i / inner) * size * inner + i % inner;
  {t} best = p[start];
  int place = 0;
  for (int j = 1; j < size; j++) {{
    const {t} v = p[start + (long)j * inner];
    if (best == best && (v != v || v {sign} best)) {{ best = v; place = j; }}
  }}
  q[oq + i] = place;
}}
"""
        inner = math.prod(x.shape[at + 1 :])
        size, group = rows(out.size)
        arguments = [out.size, x.shape[at], max(1, inner), x, out]
        launch(context, source, "arg", size if out.size else [0], arguments, group=group)
        return out

    return found


KERNELS = (
    *(item for name in REDUCTIONS for item in declare(name)),
    arg_of("ArgMax", ">"),
    arg_of("ArgMin", "<"),
)
