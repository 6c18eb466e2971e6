"""Resize, Upsample and padding by what is there: along one axis after the other, by tables made on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from epkit.backend import RunContext, kernel
from epkit.kernels.resize import (
    LEGACY,
    LEGACY_LINEAR,
    ROUNDINGS,
    WHOLE,
    Axis,
    Filter,
    neighbours,
    planned,
    scaled_axes,
    source,
)

from ..launch import c_type, download, launch, pragma
from ..memory import ClStream, Tensor
from ..strides import contiguous
from .formulas import FLOATS
from .gemm import temporary
from .indexing import rows
from .movement import constant_mode, copy, fresh
from .views import whole_axes

TYPES = {"T": FLOATS}
Table = tuple[int, np.ndarray[Any, Any], np.ndarray[Any, Any] | None]
"""An axis; for each of its new places the old ones that count, [size, n]; and their weights."""


def applied(context: RunContext, node: Any, x: Tensor, tables: Sequence[Table]) -> Tensor:
    """y[i] = sum of weights[i, n] x[index[i, n]] along each table's axis in turn."""
    shape = list(x.shape)
    for axis, index, _ in tables:
        shape[axis] = len(index)
    out = fresh(context, node, shape, x)
    if not tables:
        copy(context, x, out, x.shape, contiguous(x.shape), contiguous(x.shape))
    present = x
    for step, (axis, index, weights) in enumerate(tables):
        sizes = tuple(len(index) if a == axis else n for a, n in enumerate(present.shape))
        last = step == len(tables) - 1
        target = out if last else temporary(context, f"resize {step % 2}", sizes, x, keep=False)
        _along(context, present, target, axis, index, weights)
        present = target
    return out


def _along(context: RunContext, x: Tensor, out: Tensor, axis: int, index: Any, weights: Any) -> None:
    t, count = c_type(x.dtype), index.shape[1]
    factor = "" if weights is None else f"w[ow + j * {count} + k] * "
    extra = "" if weights is None else f", __global const {t}* w, const long ow"
    text = f"""{pragma([t])}
__kernel void along(const int n, const int size, const int old, const int inner,
                    __global const {t}* p, const long op, __global const int* k_, const long ok,
                    __global {t}* q, const long oq{extra}) {{
  const int i = get_global_id(0);
  if (i >= n) return;
  const int c = i % inner, j = i / inner % size;
  const long start = op + (long)(i / inner / size) * old * inner + c;
  {t} s = 0;
  for (int k = 0; k < {count}; k++) s += {factor}p[start + (long)k_[ok + j * {count} + k] * inner];
  q[oq + i] = s;
}}
"""
    inner = math.prod(x.shape[axis + 1 :])
    arguments = [out.size, len(index), x.shape[axis], max(1, inner), x, _table(context, index, np.int32), out]
    if weights is not None:
        arguments.append(_table(context, weights, x.dtype))
    size, group = rows(out.size)
    launch(context, text, "along", size if out.size else [0], arguments, group=group)


def _table(context: RunContext, values: Any, dtype: Any) -> Tensor:
    """A small constant of this launch."""
    import pyopencl as cl

    stream = context.stream
    assert isinstance(stream, ClStream)
    array = np.ascontiguousarray(values, dtype)
    flags = cl.mem_flags.READ_ONLY | cl.mem_flags.COPY_HOST_PTR
    return Tensor(cl.Buffer(stream.gpu.context, flags, hostbuf=array), 0, array.shape, array.dtype)


def tables_of(plan: Sequence[Axis], rule: Filter) -> list[Table]:
    """One table for each axis that changes, the one that shrinks most first."""
    moving = [a for a in plan if a.size != a.length or a.scale != 1 or a.roi != WHOLE]
    moving.sort(key=lambda a: (a.size / max(1, a.length), -a.index))
    tables: list[Table] = []
    for axis in moving:
        if axis.length == 0 and axis.size:
            raise ValueError(f"axis {axis.index} of size 0 cannot be resized to {axis.size}")
        position = source(axis, rule.coordinates)
        if rule.mode == "nearest":
            near = np.clip(ROUNDINGS[rule.nearest](position, axis.scale), 0, axis.length - 1)
            tables.append((axis.index, near.astype(np.int32)[:, None], None))
        else:
            tables.append((axis.index, *neighbours(position, axis, rule)))
    return tables


def without_crop(node: Any) -> bool | str:
    """Values from outside are not filled in."""
    mode = node.attributes.get("coordinate_transformation_mode")
    cropping = mode is not None and mode.value == "tf_crop_and_resize"
    return not cropping or "Resize with tf_crop_and_resize has no kernel"


def like(x: Tensor) -> Any:
    """An array of the same shape without memory, for functions that look at shapes."""
    return np.broadcast_to(np.zeros((), x.dtype), x.shape)


def host(context: RunContext, tensor: Tensor | None) -> Any:
    """An optional input on the host."""
    return None if tensor is None else download(context, tensor)


def legacy(x: Tensor, scales: Tensor, *, mode: str = "nearest", context: RunContext, node: Any) -> Tensor:
    """By scales, without the refinements of later versions."""
    rule = LEGACY if mode == "nearest" else LEGACY_LINEAR
    factors = np.asarray(download(context, scales), np.float32)
    plan = scaled_axes(like(x), range(x.ndim), factors, (WHOLE,) * x.ndim)
    return applied(context, node, x, tables_of(plan, rule))


resize_10 = kernel("Resize", since=10, until=10, types=TYPES)(legacy)
upsample = kernel("Upsample", since=9, types=TYPES)(legacy)


@kernel("Resize", since=11, types={"T1": FLOATS}, when=without_crop)
def resize(
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
    context: RunContext,
    node: Any,
) -> Tensor:
    """Every output from what is near the place that it comes from."""
    rule = Filter(
        mode, coordinate_transformation_mode, nearest_mode, cubic_coeff_a, bool(exclude_outside),
        extrapolation_value, bool(antialias),
    )  # fmt: skip
    roi, scales, sizes = (host(context, item) for item in (roi, scales, sizes))
    plan = planned(like(x), roi, scales, sizes, rule, axes, keep_aspect_ratio_policy)
    return applied(context, node, x, tables_of(plan, rule))


def other_mode(node: Any) -> bool | str:
    """Padding with what is there."""
    return constant_mode(node) is not True or "constant padding has a kernel of its own"


MODES = {"edge": "edge", "reflect": "reflect", "wrap": "wrap"}


def padded(context: RunContext, node: Any, x: Tensor, pads: Sequence[int], mode: str) -> Tensor:
    """Along each padded axis, the places that a padded row of numbers shows."""
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}")
    tables: list[Table] = []
    for axis, size in enumerate(x.shape):
        before, after = pads[axis], pads[axis + x.ndim]
        if before or after:
            numbers = np.arange(size, dtype=np.int32)[max(0, -before) : size + min(0, after)]
            index = np.pad(numbers, (max(0, before), max(0, after)), mode=MODES[mode])  # type: ignore[call-overload]
            tables.append((axis, index[:, None], None))
    return applied(context, node, x, tables)


@kernel("Pad", since=2, until=10, types=TYPES, when=other_mode)
def pad_2(
    x: Tensor,
    *,
    pads: Sequence[int],
    mode: str = "constant",
    value: float = 0.0,
    context: RunContext,
    node: Any,
) -> Tensor:
    """Padding by attributes."""
    return padded(context, node, x, pads, mode)


@kernel("Pad", since=11, types=TYPES, when=other_mode)
def pad(
    x: Tensor,
    pads: Tensor,
    value: Tensor | None = None,
    axes: Tensor | None = None,
    *,
    mode: str = "constant",
    context: RunContext,
    node: Any,
) -> Tensor:
    """Padding by inputs."""
    given = [int(n) for n in download(context, pads)]
    chosen = list(range(x.ndim))
    if axes is not None:
        chosen = whole_axes([int(a) for a in download(context, axes).reshape(-1)], x.ndim)
    if len(given) != 2 * len(chosen):
        raise ValueError(f"{len(given)} pads for {len(chosen)} axes")
    whole = [0] * (2 * x.ndim)
    for index, axis in enumerate(chosen):
        whole[axis], whole[axis + x.ndim] = given[index], given[index + len(chosen)]
    return padded(context, node, x, whole, mode)


KERNELS = (resize_10, upsample, resize, pad_2, pad)
