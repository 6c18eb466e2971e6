"""Convolutions: Conv, ConvTranspose, DeformConv.

Each is one matrix product per group of channels over columns that hold, for each output position, the
inputs under the kernel. Columns are made in blocks that stay in cache, so a depthwise convolution is the
same code with one channel per group.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ._bounds import bounded
from ._precision import cast, quiet, wide
from ._window import (
    Window,
    along_channels,
    check_auto_pad,
    pad,
    per_axis,
    split_padding,
    taps,
    two_sides,
    window,
)
from .operator import op

Ints = Sequence[int]

DENSE_BLOCK, GROUPED_BLOCK = 1 << 20, 1 << 18
"""Elements of one block of columns: large for an efficient product, small (with groups, whose products are
thin and bound by memory) to stay in a core's cache."""


@op("Conv")
@quiet
def conv(
    xp: Any,
    x: Any,
    w: Any,
    b: Any = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Any:
    """Y[n, m, o] = B[m] + sum over c, k of X[n, c, o*stride + k*dilation - pad] * W[m, c, k], per group."""
    check_weights(x, w, group, kernel_shape)
    if w.shape[0] % group:
        raise ValueError(f"W has {w.shape[0]} output channels, which attribute group={group} does not divide")
    view = window(
        x.shape[2:], w.shape[2:], strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad
    )
    y = convolve(xp, pad(xp, wide(xp, x), view), wide(xp, w), view, group)
    return cast(xp, add_bias(xp, y, b), x.dtype)


def check_weights(x: Any, w: Any, group: int, kernel_shape: Ints | None, *, transposed: bool = False) -> None:
    """Refuse inputs whose ranks, channels or kernel do not fit together."""
    if x.ndim < 3 or w.ndim != x.ndim:
        raise ValueError(
            f"X of shape {x.shape} and W of shape {w.shape} should have the same rank, 3 or more"
        )
    if group < 1:
        raise ValueError(f"attribute group={group} is not positive")
    channels = w.shape[0] if transposed else w.shape[1] * group
    if x.shape[1] != channels:
        raise ValueError(
            f"X has {x.shape[1]} channels, W of shape {w.shape} with group={group} needs {channels}"
        )
    if kernel_shape and tuple(kernel_shape) != tuple(w.shape[2:]):
        raise ValueError(f"attribute kernel_shape={list(kernel_shape)} differs from that of W, {w.shape[2:]}")


def add_bias(xp: Any, y: Any, b: Any) -> Any:
    """Add one value per channel to ``y``, in place; ``y`` is our own."""
    if b is not None:
        if tuple(b.shape) != (y.shape[1],):
            raise ValueError(f"B of shape {b.shape} should have one value for each of {y.shape[1]} channels")
        y += along_channels(xp, cast(xp, b, y.dtype), y.ndim)
    return y


def convolve(xp: Any, x: Any, w: Any, view: Window, group: int) -> Any:
    """The convolution of a padded input."""
    n, out = x.shape[0], (x.shape[0], w.shape[0], *view.output)
    depth = w.shape[1] * math.prod(view.kernel)
    weights = xp.reshape(w, (group, w.shape[0] // group, depth))
    x = xp.reshape(x, (n, group, w.shape[1], *x.shape[2:]))
    blocks = list(column_blocks(n, group, depth, view))
    if math.prod(view.kernel) == 1 or len(blocks) == 1:
        return xp.reshape(product(xp, weights, x, view), out)
    y = xp.empty((n, group, w.shape[0] // group, *view.output), dtype=x.dtype)
    for samples, groups, rows in blocks:
        first = x[samples, groups, :, rows.start * view.strides[0] :]
        part = replace(view, output=(rows.stop - rows.start, *view.output[1:]))
        y[samples, groups, :, rows] = product(xp, weights[groups], first, part)
    return xp.reshape(y, out)


def product(xp: Any, weights: Any, x: Any, view: Window) -> Any:
    """Weights (g, m, c*K) times the columns of x (n, g, c, ...): (n, g, m, *output)."""
    reads = list(taps(x, view))
    columns = reads[0] if len(reads) == 1 else xp.stack(reads, axis=3)
    columns = xp.reshape(columns, (*x.shape[:2], weights.shape[2], math.prod(view.output)))
    y = xp.matmul(weights, columns)
    return xp.reshape(y, (*y.shape[:3], *view.output))


def column_blocks(n: int, group: int, depth: int, view: Window) -> Iterator[tuple[slice, slice, slice]]:
    """Slices of samples, groups and output rows whose columns have about one block of elements."""
    rows = view.output[0]
    row = depth * math.prod(view.output[1:])
    sizes = ((n, group * rows * row), (group, rows * row), (rows, row))
    room = DENSE_BLOCK if group == 1 else GROUPED_BLOCK
    steps = [max(1, min(count, room // max(size, 1))) for count, size in sizes]
    yield from itertools.product(
        *(
            [slice(start, min(start + step, size)) for start in range(0, size, step)]
            for size, step in zip((n, group, rows), steps, strict=True)
        )
    )


@op("ConvTranspose")
@quiet
def conv_transpose(
    xp: Any,
    x: Any,
    w: Any,
    b: Any = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    output_padding: Ints | None = None,
    output_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Any:
    """Y[n, m, i*stride + k*dilation - pad] += X[n, c, i] * W[c, m, k], per group: the gradient of Conv."""
    check_weights(x, w, group, kernel_shape, transposed=True)
    if x.shape[1] % group:
        raise ValueError(f"X has {x.shape[1]} channels, which attribute group={group} does not divide")
    view = transposed_window(x, w, auto_pad, dilations, output_padding, output_shape, pads, strides)
    n, m, rank = x.shape[0], w.shape[1], view.rank
    weights = xp.reshape(wide(xp, w), (group, w.shape[0] // group, m * math.prod(view.kernel)))
    flat = xp.reshape(wide(xp, x), (n, group, x.shape[1] // group, math.prod(x.shape[2:])))
    columns = xp.matmul(xp.permute_dims(weights, (0, 2, 1)), flat)
    columns = xp.reshape(columns, (n, group * m, math.prod(view.kernel), *x.shape[2:]))
    sizes = tuple(
        max(f, b + o) for f, b, o in zip(full_sizes(x.shape[2:], view), view.begin, view.output, strict=True)
    )
    y = xp.zeros(bounded((n, group * m, *sizes), columns), dtype=columns.dtype)
    over_inputs = replace(view, output=tuple(x.shape[2:]))
    for tap, target in enumerate(taps(y, over_inputs)):
        target += columns[:, :, tap]
    y = y[(..., *(slice(view.begin[i], view.begin[i] + view.output[i]) for i in range(rank)))]
    return cast(xp, add_bias(xp, y, b), x.dtype)


def full_sizes(sizes: Ints, view: Window) -> list[int]:
    """The spatial sizes that a transposed convolution writes to before anything is cropped."""
    return [
        max((size - 1) * s + (k - 1) * d + 1, 0)
        for size, s, k, d in zip(sizes, view.strides, view.kernel, view.dilations, strict=True)
    ]


def transposed_window(
    x: Any,
    w: Any,
    auto_pad: str,
    dilations: Ints | None,
    output_padding: Ints | None,
    output_shape: Ints | None,
    pads: Ints | None,
    strides: Ints | None,
) -> Window:
    """The window whose ``output`` is the size of Y and whose ``begin`` is what Y leaves out before it."""
    sizes, rank = x.shape[2:], x.ndim - 2
    auto_pad = check_auto_pad(auto_pad)
    strides = per_axis("strides", strides, rank, 1, 1)
    dilations = per_axis("dilations", dilations, rank, 1, 1)
    extra = per_axis("output_padding", output_padding, rank, 0, 0)
    begin, end = two_sides(pads if auto_pad == "NOTSET" else None, rank)
    view = Window(tuple(w.shape[2:]), strides, dilations, begin, end, ())
    full = [f + e for f, e in zip(full_sizes(sizes, view), extra, strict=True)]
    if output_shape:
        # Some exporters name batch and channels too.
        output = per_axis("output_shape", tuple(output_shape)[-rank:], rank, 0, 0)
    elif auto_pad.startswith("SAME"):
        output = tuple(size * s for size, s in zip(sizes, strides, strict=True))
    else:
        output = tuple(f - b - e for f, b, e in zip(full, begin, end, strict=True))
        if any(o < 0 for o in output):
            raise ValueError(f"attribute pads={list(begin + end)} leaves an output of spatial sizes {output}")
        return replace(view, output=output)
    begin = tuple(split_padding(max(f - o, 0), auto_pad)[0] for f, o in zip(full, output, strict=True))
    return replace(view, begin=begin, output=output)


@op("DeformConv", since=19)
@quiet
def deform_conv(
    xp: Any,
    x: Any,
    w: Any,
    offset: Any,
    b: Any = None,
    mask: Any = None,
    *,
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    offset_group: int = 1,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Any:
    """Conv that reads X, interpolated, at o*stride + k*dilation - pad + offset[k, o], times mask[k, o]."""
    check_weights(x, w, group, kernel_shape)
    if w.shape[0] % group or offset_group < 1 or x.shape[1] % offset_group:
        raise ValueError(
            f"group={group} and offset_group={offset_group} should divide {w.shape[0]} output and "
            f"{x.shape[1]} input channels"
        )
    view = window(
        x.shape[2:], w.shape[2:], strides=strides, dilations=dilations, pads=pads, auto_pad="NOTSET"
    )
    n, kernel, places = x.shape[0], math.prod(view.kernel), math.prod(view.output)
    by_tap = (n, offset_group, kernel, *view.output)
    moved = reshape_input(xp, "offset", offset, (*by_tap[:3], view.rank, *view.output))
    samples = xp.reshape(wide(xp, x), (n, offset_group, -1, math.prod(x.shape[2:])))
    columns = interpolate(xp, samples, x.shape[2:], positions(xp, moved, view))
    if mask is not None:
        columns = columns * xp.reshape(
            reshape_input(xp, "mask", mask, by_tap), (n, offset_group, 1, kernel * places)
        )
    columns = xp.reshape(columns, (n, group, w.shape[1] * kernel, places))
    y = xp.matmul(xp.reshape(wide(xp, w), (group, w.shape[0] // group, -1)), columns)
    y = xp.reshape(y, (n, w.shape[0], *view.output))
    return cast(xp, add_bias(xp, y, b), x.dtype)


def reshape_input(xp: Any, name: str, value: Any, shape: Ints) -> Any:
    """An input in the shape that its meaning gives it, in at least float32."""
    if math.prod(value.shape) != math.prod(shape):
        raise ValueError(f"input {name} of shape {value.shape} should have the elements of {tuple(shape)}")
    return xp.reshape(wide(xp, value), tuple(shape))


def positions(xp: Any, offset: Any, view: Window) -> list[Any]:
    """Per spatial axis, where each output reads: (n, offset groups, kernel * outputs)."""
    result = []
    for axis in range(view.rank):
        shape = [1] * (2 * view.rank)
        shape[axis], shape[view.rank + axis] = view.kernel[axis], view.output[axis]
        k = xp.arange(view.kernel[axis], dtype=offset.dtype) * view.dilations[axis] - view.begin[axis]
        o = xp.arange(view.output[axis], dtype=offset.dtype) * view.strides[axis]
        grid = xp.broadcast_to(xp.reshape(k[:, None] + o, shape), (*view.kernel, *view.output))
        moved = xp.reshape(offset[:, :, :, axis], (*offset.shape[:2], math.prod(grid.shape)))
        result.append(moved + xp.reshape(grid, (-1,)))
    return result


def interpolate(xp: Any, samples: Any, sizes: Ints, where: list[Any]) -> Any:
    """Multilinear interpolation of (n, g, c, prod(sizes)) at (n, g, points); zero outside."""
    lows = [xp.floor(p) for p in where]
    total: Any = 0
    for corner in itertools.product((0, 1), repeat=len(sizes)):
        index: Any = 0
        weight: Any = 1
        for position, low, high, size in zip(where, lows, corner, sizes, strict=True):
            place = low + high
            share = (position - low) if high else (1 - (position - low))
            inside = (place >= 0) & (place < size)
            weight = weight * xp.where(inside, share, xp.zeros_like(share))
            index = index * size + xp.astype(xp.where(inside, place, xp.zeros_like(place)), xp.int64)
        total = total + xp.take_along_axis(samples, index[:, :, None], axis=-1) * weight[:, :, None]
    return total


@op("CausalConvWithState", since=27)
@quiet
def causal_conv_with_state(
    xp: Any, x: Any, weight: Any, bias: Any = None, past_state: Any = None, *, activation: str = "none"
) -> Any:
    """Depthwise Conv over (past_state, X), so that nothing sees later inputs; then the last k - 1 of these.

    ``silu`` and ``swish`` both multiply the result by its sigmoid.
    """
    if activation not in ("none", "silu", "swish"):
        raise ValueError(f"attribute activation={activation!r} is not none, silu or swish")
    if x.ndim != 3 or weight.ndim != 3 or tuple(weight.shape[:2]) != (x.shape[1], 1) or not weight.shape[2]:
        raise ValueError(
            f"input weight of shape {weight.shape} should be (channels, 1, k) for an input {x.shape}"
        )
    kept = (*x.shape[:2], weight.shape[2] - 1)
    past = xp.zeros(kept, dtype=x.dtype) if past_state is None else past_state
    if tuple(past.shape) != kept:
        raise ValueError(f"input past_state of shape {past.shape} should have shape {kept}")
    sequence = xp.concat([past, x], axis=2)
    view = (
        window(
            sequence.shape[2:], weight.shape[2:], strides=None, dilations=None, pads=None, auto_pad="VALID"
        )
        if x.shape[2]
        else Window((weight.shape[2],), (1,), (1,), (0,), (0,), (0,))
    )
    y = add_bias(xp, convolve(xp, wide(xp, sequence), wide(xp, weight), view, x.shape[1]), bias)
    if activation != "none":
        y = y / (1 + xp.exp(-y))
    return cast(xp, y, x.dtype), sequence[:, :, x.shape[2] :]
