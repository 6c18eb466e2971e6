"""Resize and Upsample: interpolation along one axis after another.

The value at an output position is a weighted sum of input values near the position that it comes from.
Those positions and weights are small host arrays, made once per axis; the tensor meets them in `interpolate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, isfinite
from typing import Any

import numpy as np

from ._axes import all_axes, choice, ints, wide_type
from ._bounds import bounded
from .operator import op

LARGEST_MATRIX = 256
"""Axes up to this length are interpolated by one matrix product, longer ones neighbour by neighbour."""

LARGEST_FILTER = 1 << 26
"""Weights of one axis above which the scale is taken for a mistake."""


@dataclass(frozen=True)
class Axis:
    """How one axis is resized: by up / down, to a whole ``size``. Given sizes leave the quotient exact."""

    index: int
    length: int
    size: int
    up: float
    down: float
    roi: tuple[float, float]

    @property
    def scale(self) -> float:
        return self.up / self.down

    @property
    def wanted(self) -> float:
        """The new length before rounding."""
        return self.length * self.up / self.down


@dataclass(frozen=True)
class Filter:
    """The attributes that say which input values count, and how much."""

    mode: str = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    cubic_a: float = -0.75
    exclude_outside: bool = False
    extrapolation: float = 0.0
    antialias: bool = False


WHOLE = (0.0, 1.0)
LEGACY = Filter(coordinates="asymmetric", nearest="simple")
LEGACY_LINEAR = Filter(mode="linear", coordinates="asymmetric")


@op("Upsample", since=1)
def upsample_1(xp: Any, x: Any, *, height_scale: float, width_scale: float, mode: str = "nearest") -> Any:
    """[N, C, H, W] -> [N, C, floor(H * height_scale), floor(W * width_scale)]."""
    return legacy(xp, x, (1.0,) * (x.ndim - 2) + (height_scale, width_scale), mode)


@op("Upsample", since=7)
def upsample_7(xp: Any, x: Any, *, scales: Sequence[float], mode: str = "nearest") -> Any:
    """y[i] = x[i / scale] along every axis. Until opset 8 the scales are an attribute."""
    return legacy(xp, x, scales, mode)


@op("Upsample", since=9)
@op("Resize", since=10)
def resize_10(xp: Any, x: Any, scales: Any, *, mode: str = "nearest") -> Any:
    """y[i] = x[i / scale] along every axis: the nearest below (above where it shrinks), or linear."""
    return legacy(xp, x, np.asarray(scales.tolist(), dtype=np.float32), mode)


def legacy(xp: Any, x: Any, scales: Any, mode: str) -> Any:
    linear = choice(mode, ("nearest", "linear", "bilinear"), "mode") != "nearest"
    axes = scaled_axes(x, range(x.ndim), scales, (WHOLE,) * x.ndim)
    return resized(xp, x, axes, LEGACY_LINEAR if linear else LEGACY)


@op("Resize", since=11)
def resize(
    xp: Any,
    x: Any,
    roi: Any = None,
    scales: Any = None,
    sizes: Any = None,
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
) -> Any:
    """y[i] = the weighted mean of x about the position that i comes from, axis by axis.

    Opset 18 added antialias, axes and keep_aspect_ratio_policy, opset 19 half_pixel_symmetric.
    """
    rule = Filter(
        mode,
        coordinate_transformation_mode,
        nearest_mode,
        cubic_coeff_a,
        bool(exclude_outside),
        extrapolation_value,
        bool(antialias),
    )
    return resized(xp, x, planned(x, roi, scales, sizes, rule, axes, keep_aspect_ratio_policy), rule)


def planned(
    x: Any, roi: Any, scales: Any, sizes: Any, rule: Filter, axes: Sequence[int] | None, policy: str
) -> list[Axis]:
    """The axes to resize, from the inputs of Resize; of ``x`` only the shape is looked at.

    Raises:
        ValueError: if inputs or attributes do not fit.
    """
    choice(rule.mode, ("nearest", "linear", "cubic"), "mode")
    choice(rule.nearest, tuple(ROUNDINGS), "nearest_mode")
    choice(rule.coordinates, COORDINATES, "coordinate_transformation_mode")
    listed = tuple(range(x.ndim)) if axes is None else all_axes(axes, x.ndim)
    regions = [WHOLE] * len(listed)
    if rule.coordinates == "tf_crop_and_resize":
        regions = read_roi(roi, len(listed))
    if absent(scales) == absent(sizes):
        raise ValueError("exactly one of the inputs scales and sizes must be given")
    if absent(sizes):
        return scaled_axes(x, listed, np.asarray(scales.tolist(), dtype=np.float32), regions)
    return sized_axes(x, listed, ints(sizes), regions, policy)


def absent(values: Any) -> bool:
    """Whether an optional input is left out, or empty (which means the same here)."""
    return values is None or 0 in values.shape


def read_roi(roi: Any, count: int) -> list[tuple[float, float]]:
    values = [] if roi is None else [float(v) for v in roi.tolist()]
    if not all(map(isfinite, values)):
        raise ValueError(f"roi {values} must be finite")
    if len(values) != 2 * count:
        raise ValueError(
            f"roi holds {len(values)} values, tf_crop_and_resize needs two for each of {count} axes"
        )
    return list(zip(values[:count], values[count:], strict=True))


def scaled_axes(x: Any, listed: Sequence[int], scales: Any, regions: Any) -> list[Axis]:
    """The axes to resize by given scales, to lengths that are rounded down.

    The standard's text multiplies the length by the roi's extent too; its shape inference, its reference
    and onnxruntime do not, and neither does this.
    """
    if len(scales) != len(listed):
        raise ValueError(f"scales holds {len(scales)} values for {len(listed)} axes")
    if not all(isfinite(s) and s > 0 for s in scales):
        raise ValueError(f"scales {[float(s) for s in scales]} must be positive")
    plan = []
    for axis, scale, roi in zip(listed, scales, regions, strict=True):
        up, down = quotient(float(scale))
        size = int(x.shape[axis] * up // down)
        plan.append(Axis(axis, x.shape[axis], size, up, down, roi))
    return plan


def quotient(scale: float) -> tuple[float, float]:
    """The simplest up / down with the float32 value ``scale``: 0.6 means 3/5; positions stay on the grid."""
    down = np.arange(1.0, 1025.0)
    up = np.round(scale * down)
    same = np.flatnonzero((up / down).astype(np.float32) == np.float32(scale))
    return (float(up[same[0]]), float(down[same[0]])) if same.size else (scale, 1.0)


def sized_axes(x: Any, listed: Sequence[int], sizes: Sequence[int], regions: Any, policy: str) -> list[Axis]:
    """The axes to resize to given sizes, or under a policy to the sizes nearest to them of one scale."""
    choice(policy, ("stretch", "not_larger", "not_smaller"), "keep_aspect_ratio_policy")
    if len(sizes) != len(listed) or min(sizes) < 0:
        raise ValueError(f"sizes {tuple(sizes)} must be {len(listed)} sizes of at least 0")
    lengths = [x.shape[axis] for axis in listed]
    ratios = [(size, length or 1) for size, length in zip(sizes, lengths, strict=True)]
    if policy != "stretch":
        best = min if policy == "not_larger" else max
        up, down = best(ratios, key=lambda ratio: ratio[0] / ratio[1])
        ratios = [(up, down)] * len(listed)
        sizes = [(2 * length * up + down) // (2 * down) for length in lengths]
    return [
        Axis(axis, length, size, *ratio, roi)
        for axis, length, size, ratio, roi in zip(listed, lengths, sizes, ratios, regions, strict=True)
    ]


COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)


def source(axis: Axis, coordinates: str) -> Any:
    """The input position (a fraction) that each output position comes from."""
    i = np.arange(axis.size, dtype=np.float64)
    last = axis.length - 1
    if coordinates == "asymmetric":
        return i * axis.down / axis.up
    if coordinates == "tf_half_pixel_for_nn":
        return (i + 0.5) * axis.down / axis.up
    if coordinates == "align_corners":
        return i * last / (axis.wanted - 1) if axis.wanted > 1 else i * 0.0
    if coordinates == "tf_crop_and_resize":
        start, end = axis.roi
        if axis.size == 1:
            return i + 0.5 * (start + end) * last
        return without_noise(start * last + i * (end - start) * last / (axis.size - 1))
    if coordinates == "pytorch_half_pixel" and axis.size == 1:
        return i * 0.0
    position = (i + 0.5) * axis.down / axis.up - 0.5
    if coordinates == "half_pixel_symmetric":
        return without_noise(position + axis.length / 2 * (1 - axis.size / axis.wanted))
    return position


def without_noise(position: Any) -> Any:
    """Rounded to float32, so that bounds given in float32 do not push a position off the grid."""
    return position.astype(np.float32).astype(np.float64)


ROUNDINGS = {
    "round_prefer_floor": lambda position, scale: np.ceil(position - 0.5),
    "round_prefer_ceil": lambda position, scale: np.floor(position + 0.5),
    "floor": lambda position, scale: np.floor(position),
    "ceil": lambda position, scale: np.ceil(position),
    "simple": lambda position, scale: np.ceil(position) if scale < 1 else np.floor(position),
}


@np.errstate(over="ignore", invalid="ignore")
def resized(xp: Any, x: Any, plan: Sequence[Axis], rule: Filter) -> Any:
    """x with every axis of the plan resized, the ones that shrink most first, and the last of equals."""
    shape = list(x.shape)
    for axis in plan:
        shape[axis.index] = axis.size
        if axis.length == 0 and axis.size:
            raise ValueError(f"axis {axis.index} of size 0 cannot be resized to {axis.size}")
    bounded(shape, x)
    if 0 in shape:
        return xp.zeros(tuple(shape), dtype=x.dtype)
    moving = [a for a in plan if a.size != a.length or a.scale != 1 or a.roi != WHOLE]
    moving.sort(key=lambda a: (a.size / a.length, -a.index))
    exact = rule.mode == "nearest"
    integral = x.dtype.kind in "biu"
    if not exact and x.dtype.kind in "OUT":
        raise ValueError(f"mode {rule.mode!r} is not defined for strings")
    y = x if exact or not moving else xp.astype(x, xp.float64 if integral else wide_type(xp, x), copy=False)
    for axis in moving:
        position = source(axis, rule.coordinates)
        if exact:
            near = np.clip(ROUNDINGS[rule.nearest](position, axis.scale), 0, axis.length - 1)
            y = xp.take(y, xp.asarray(near.astype(np.int64)), axis=axis.index)
        else:
            y = interpolate(xp, y, axis, *neighbours(position, axis, rule))
    if rule.coordinates == "tf_crop_and_resize":
        y = extrapolated(xp, y, moving, rule)
    return truncated(xp, y, x.dtype) if integral and not exact else xp.astype(y, x.dtype, copy=False)


def neighbours(position: Any, axis: Axis, rule: Filter) -> tuple[Any, Any]:
    """For each position [size], the input positions that count and their weights, each [size, n]."""
    shrink = min(axis.scale, 1.0) if rule.antialias else 1.0
    reach = 2 if rule.mode == "cubic" else 1
    low = floor(-reach / shrink) + 1
    if -low * axis.size > LARGEST_FILTER:
        raise ValueError(f"the antialiasing filter of axis {axis.index} at scale {axis.scale} is too large")
    steps = np.arange(low, 2 - low)
    below = np.floor(position)
    distance = np.abs((steps - (position - below)[:, None]) * shrink)
    weights = cubic(distance, rule.cubic_a) if rule.mode == "cubic" else np.clip(1 - distance, 0, None)
    index = below[:, None] + steps
    if rule.exclude_outside:
        weights = np.where((index < 0) | (index >= axis.length), 0.0, weights)
    total = weights.sum(axis=1, keepdims=True)
    weights = weights / np.where(total == 0, 1.0, total)
    main = np.take_along_axis(index, weights.argmax(axis=1, keepdims=True), axis=1)
    index = np.where(weights == 0, main, index)  # what does not count must not spread an infinity
    return np.clip(index, 0, axis.length - 1).astype(np.int64), weights


def cubic(distance: Any, a: float) -> Any:
    """Keys' cubic convolution kernel at a distance of at least 0."""
    d = distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def interpolate(xp: Any, x: Any, axis: Axis, index: Any, weights: Any) -> Any:
    """y[i] = sum over n of weights[i, n] * x[index[i, n]] along the axis."""
    along = axis.index
    if axis.length <= LARGEST_MATRIX and bool(xp.all(xp.isfinite(x))):
        matrix = np.zeros((axis.size, axis.length))
        np.add.at(matrix, (np.arange(axis.size)[:, None], index), weights)
        return along_axis(xp, x, xp.asarray(matrix, dtype=x.dtype), along)
    shape = [1] * x.ndim
    shape[along] = axis.size
    total = 0
    for n in range(index.shape[1]):
        weight = xp.reshape(xp.asarray(weights[:, n], dtype=x.dtype), tuple(shape))
        total = total + weight * xp.take(x, xp.asarray(index[:, n]), axis=along)
    return total


def along_axis(xp: Any, x: Any, matrix: Any, axis: int) -> Any:
    """matrix [m, n] applied along an axis of length n."""
    if axis == x.ndim - 1:
        return xp.matmul(x, matrix.T)
    inner = xp.reshape(x, (*x.shape[: axis + 1], -1))
    return xp.reshape(xp.matmul(matrix, inner), (*x.shape[:axis], matrix.shape[0], *x.shape[axis + 1 :]))


def extrapolated(xp: Any, y: Any, moving: Sequence[Axis], rule: Filter) -> Any:
    """y with the extrapolation value where an axis's position lies outside the input."""
    for axis in moving:
        position = source(axis, rule.coordinates)
        shape = [1] * y.ndim
        shape[axis.index] = axis.size
        outside = xp.reshape(xp.asarray((position < 0) | (position > axis.length - 1)), tuple(shape))
        y = xp.where(outside, xp.asarray(rule.extrapolation, dtype=y.dtype), y)
    return y


def truncated(xp: Any, y: Any, dtype: Any) -> Any:
    """y as integers: towards zero (but for rounding noise), and within the type's range."""
    whole = xp.trunc(xp.round(y, 6))
    if dtype.kind == "b":
        return whole != 0
    limits = xp.iinfo(dtype)
    top = float(limits.max)
    return xp.astype(xp.clip(whole, limits.min, top if top <= limits.max else np.nextafter(top, 0)), dtype)
