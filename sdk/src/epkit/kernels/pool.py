"""Pooling of windows (AveragePool, MaxPool, LpPool) and of whole channels (Global*), and MaxUnpool.

Sums and maxima of a window are separable, so they are taken axis by axis: k1 + k2 passes, not k1 * k2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ._bounds import bounded
from ._precision import cast, is_float, mean, quiet, wide
from ._window import Window, pad, per_axis, taps, two_sides, window
from .operator import op

Ints = Sequence[int]


def pool_window(
    x: Any,
    kernel: Ints,
    auto_pad: str,
    ceil_mode: int,
    dilations: Ints | None,
    pads: Ints | None,
    strides: Ints | None,
) -> Window:
    """The window of a pooling operator over X (N, C, spatial...)."""
    if x.ndim < 3:
        raise ValueError(f"input X of shape {x.shape} should have batch, channel and spatial axes")
    return window(
        x.shape[2:],
        kernel,
        strides=strides,
        dilations=dilations,
        pads=pads,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
    )


def fold(padded: Any, view: Window, combine: Callable[[Any, Any], Any]) -> Any:
    """Reduce every window with an associative ``combine``, one spatial axis after the other."""
    for axis in range(view.rank):
        before = (slice(None),) * (2 + axis)
        reads = [padded[(*before, view.span(axis, tap))] for tap in range(view.kernel[axis])]
        padded = reads[0]
        for read in reads[1:]:
            padded = combine(padded, read)
    return padded


@op("AveragePool")
@quiet
def average_pool(
    xp: Any,
    x: Any,
    *,
    kernel_shape: Ints,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Any:
    """The mean of each window over its elements in X (with ``count_include_pad``, in X and its padding)."""
    view = pool_window(x, kernel_shape, auto_pad, ceil_mode, dilations, pads, strides)
    if not count_include_pad:
        check_windows(view, x.shape[2:])
    total = fold(pad(xp, wide(xp, x), view), view, xp.add)
    counts: Any = np.ones((), total.dtype)
    for axis, size in enumerate(x.shape[2:]):
        counts = counts[..., None] * reads(view, axis, size, bool(count_include_pad)).astype(total.dtype)
    return cast(xp, total / xp.asarray(counts), x.dtype)


def reads(view: Window, axis: int, size: int, with_padding: bool) -> Any:
    """How many positions of each output's window along an axis read an element of X (or of its padding)."""
    (count,) = bounded((view.output[axis],), what="the output")
    start = np.arange(count) * view.strides[axis] - view.begin[axis]
    step, kernel = view.dilations[axis], view.kernel[axis]
    first = 0 if with_padding else -(-np.maximum(-start, 0) // step)
    end = -(-((size + view.end[axis] if with_padding else size) - start) // step)
    return np.maximum(np.minimum(end, kernel) - first, 0)


def check_windows(view: Window, sizes: Ints) -> None:
    """Refuse windows that read nothing but padding."""
    for axis, size in enumerate(sizes):
        if not reads(view, axis, size, False).all():
            raise ValueError(
                f"a window of {view.kernel[axis]} elements lies in the padding "
                f"{view.begin[axis]} + {view.end[axis]} of an axis with {size}"
            )


@op("LpPool")
@quiet
def lp_pool(
    xp: Any,
    x: Any,
    *,
    kernel_shape: Ints | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints | None = None,
    p: float = 2,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Any:
    """The p-norm of each window; ``p`` is an integer since opset 2, before that a float."""
    if not kernel_shape:
        raise ValueError("attribute kernel_shape is missing")
    view = pool_window(x, kernel_shape, auto_pad, ceil_mode, dilations, pads, strides)
    total = fold(pad(xp, power(xp, wide(xp, x), p), view), view, xp.add)
    return cast(xp, root(xp, total, p), x.dtype)


def power(xp: Any, x: Any, p: float) -> Any:
    """abs(x) ** p, in the type of ``x``."""
    if p <= 0:
        raise ValueError(f"attribute p={p} is not positive")
    magnitude = xp.abs(x)
    if p == 1:
        return magnitude
    return magnitude * magnitude if p == 2 else magnitude ** float(p)


def root(xp: Any, x: Any, p: float) -> Any:
    """x ** (1 / p), in the type of ``x``."""
    if p == 1:
        return x
    return xp.sqrt(x) if p == 2 else x ** (1 / p)


def lowest(xp: Any, dtype: Any) -> Any:
    """The neutral element of a maximum."""
    return -math.inf if is_float(xp, dtype) else xp.iinfo(dtype).min


@op("MaxPool")
@quiet
def max_pool(
    xp: Any,
    x: Any,
    *,
    kernel_shape: Ints,
    n_outputs: int,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints | None = None,
    pads: Ints | None = None,
    storage_order: int = 0,
    strides: Ints | None = None,
) -> Any:
    """The maximum of each window; then its flat index in X, spatial axes rows first or columns first."""
    view = pool_window(x, kernel_shape, auto_pad, ceil_mode, dilations, pads, strides)
    check_windows(view, x.shape[2:])
    padded = pad(xp, wide(xp, x), view, lowest(xp, x.dtype))
    if math.prod(view.kernel) == 1:
        padded = xp.asarray(padded, copy=True)  # The result would be a view of X.
    if n_outputs < 2:
        return cast(xp, fold(padded, view, xp.maximum), x.dtype)
    best, index = first_maximum(xp, padded, flat_places(view, x.shape[2:], storage_order), view)
    channels = xp.reshape(
        xp.arange(math.prod(x.shape[:2]), dtype=xp.int64), (*x.shape[:2], *(1,) * view.rank)
    )
    return cast(xp, best, x.dtype), index + channels * math.prod(x.shape[2:])


def flat_places(view: Window, sizes: Ints, storage_order: int) -> Any:
    """The flat spatial index that each kernel position of each output reads: (kernel, *output).

    A position in the padding counts as the border next to it, which the same window reads too.
    """
    if storage_order not in (0, 1):
        raise ValueError(
            f"attribute storage_order={storage_order} is neither 0 (rows first) nor 1 (columns first)"
        )
    bounded((math.prod(view.kernel), *view.output), what="the table of places")
    result: Any = np.zeros((1,) * (2 * view.rank), np.int64)
    for axis, size in enumerate(sizes):
        step = math.prod(sizes[:axis] if storage_order else sizes[axis + 1 :])
        k = np.arange(view.kernel[axis])[:, None] * view.dilations[axis]
        place = k + np.arange(view.output[axis]) * view.strides[axis] - view.begin[axis]
        shape = [1] * (2 * view.rank)
        shape[axis], shape[view.rank + axis] = place.shape
        result = result + (np.clip(place, 0, size - 1) * step).reshape(shape)
    return result.reshape(math.prod(view.kernel), *view.output)


def first_maximum(xp: Any, padded: Any, places: Any, view: Window) -> tuple[Any, Any]:
    """The maximum of each window, and the place of its first occurrence."""
    best: Any = None
    index: Any = None
    for read, place in zip(taps(padded, view), places, strict=True):
        place = xp.asarray(place)
        if best is None:
            best, index = read, xp.broadcast_to(place, read.shape)
        else:
            better = read > best
            best, index = xp.where(better, read, best), xp.where(better, place, index)
    return best, index


def spatial_axes(x: Any) -> tuple[int, ...]:
    """All axes after batch and channels."""
    if x.ndim < 3:
        raise ValueError(f"input X of shape {x.shape} should have batch, channel and spatial axes")
    return tuple(range(2, x.ndim))


@op("GlobalAveragePool")
@quiet
def global_average_pool(xp: Any, x: Any) -> Any:
    """The mean of each channel, the spatial axes kept with size 1."""
    axes = spatial_axes(x)
    return cast(xp, mean(xp, wide(xp, x), axes), x.dtype)


@op("GlobalMaxPool")
def global_max_pool(xp: Any, x: Any) -> Any:
    """The maximum of each channel, the spatial axes kept with size 1."""
    axes = spatial_axes(x)
    if 0 in x.shape[2:]:
        raise ValueError(f"input X of shape {x.shape} has no spatial element to take the maximum of")
    return cast(xp, xp.max(wide(xp, x), axis=axes, keepdims=True), x.dtype)


@op("GlobalLpPool")
@quiet
def global_lp_pool(xp: Any, x: Any, *, p: float = 2) -> Any:
    """The p-norm of each channel; ``p`` is an integer since opset 2, before that a float."""
    total = xp.sum(power(xp, wide(xp, x), p), axis=spatial_axes(x), keepdims=True)
    return cast(xp, root(xp, total, p), x.dtype)


@op("MaxUnpool", since=9)
def max_unpool(
    xp: Any,
    x: Any,
    indices: Any,
    output_shape: Any = None,
    *,
    kernel_shape: Ints,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Any:
    """Zeros, with X at ``indices`` of the shape that the attributes give; then padded to ``output_shape``."""
    rank = len(spatial_axes(x))
    kernel = per_axis("kernel_shape", kernel_shape, rank, 1, 1)
    steps = per_axis("strides", strides, rank, 1, 1)
    begin, end = two_sides(pads, rank)
    sizes = [
        (size - 1) * s + k - b - e
        for size, s, k, b, e in zip(x.shape[2:], steps, kernel, begin, end, strict=True)
    ]
    shape = (*x.shape[:2], *sizes)
    count = math.prod(max(size, 0) for size in shape)
    if tuple(indices.shape) != tuple(x.shape):
        raise ValueError(f"inputs X {x.shape} and I {indices.shape} should have the same shape")
    if x.size and (xp.min(indices) < 0 or xp.max(indices) >= count):
        raise ValueError(
            f"input I holds indices from {int(xp.min(indices))} to {int(xp.max(indices))}, "
            f"the output of shape {shape} has {count} elements"
        )
    flat = xp.zeros(bounded((count,), x), dtype=x.dtype)
    flat[xp.reshape(indices, (-1,))] = xp.reshape(x, (-1,))
    result = xp.reshape(flat, tuple(max(size, 0) for size in shape))
    if output_shape is None:
        return result
    wanted = tuple(int(v) for v in output_shape)
    if (
        len(wanted) != x.ndim
        or wanted[:2] != tuple(x.shape[:2])
        or any(w < s for w, s in zip(wanted, shape, strict=True))
    ):
        raise ValueError(f"input output_shape={list(wanted)} should be at least {list(shape)}")
    larger = xp.zeros(bounded(wanted, x), dtype=x.dtype)
    larger[tuple(slice(size) for size in result.shape)] = result
    return larger
