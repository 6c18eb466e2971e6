"""Operators that take a part of a tensor, or surround it with padding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

from ._axes import all_axes, choice, ints, scalar, widened
from ._bounds import bounded
from .operator import op


@op("Slice", since=1)
def slice_1(
    xp: Any, data: Any, *, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None = None
) -> Any:
    """data[start:end] along each of ``axes``. Until opset 9: attributes, and no steps."""
    return slice_10(xp, data, starts, ends, axes)


@op("Slice", since=10)
def slice_10(xp: Any, data: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    """data[start:end:step] along each of ``axes``; bounds may be negative and are clamped."""
    first, last = ints(starts), ints(ends)
    listed = range(len(first)) if axes is None else ints(axes)
    stride = (1,) * len(first) if steps is None else ints(steps)
    if not len(first) == len(last) == len(listed) == len(stride):
        raise ValueError(
            f"starts, ends, axes and steps differ in length: "
            f"{len(first)}, {len(last)}, {len(listed)}, {len(stride)}"
        )
    index = [slice(None)] * data.ndim
    for axis, start, end, step in zip(all_axes(listed, data.ndim), first, last, stride, strict=True):
        index[axis] = one_slice(start, end, step, data.shape[axis])
    return data[tuple(index)]


def one_slice(start: int, end: int, step: int, size: int) -> slice:
    """The Python slice; unlike Python's own reading, a start before 0 is clamped to 0 for any step."""
    if step == 0:
        raise ValueError("steps holds 0")
    if start < -size:
        start = 0
    return slice(start, end if end >= -size or step > 0 else None, step)


MODES = ("constant", "reflect", "edge", "wrap")


@op("Pad", since=1)
def pad_1(xp: Any, data: Any, *, paddings: Sequence[int], mode: str = "constant", value: float = 0.0) -> Any:
    """Surround the data: begins of all axes, then ends. Opset 1: the attribute is called paddings."""
    return pad_2(xp, data, pads=paddings, mode=mode, value=value)


@op("Pad", since=2)
def pad_2(xp: Any, data: Any, *, pads: Sequence[int], mode: str = "constant", value: float = 0.0) -> Any:
    """Surround the data: begins of all axes, then ends. Until opset 10: attributes."""
    return pad(xp, data, pads, xp.asarray(value, dtype=data.dtype), mode=mode)


@op("Pad", since=11)
def pad(
    xp: Any, data: Any, pads: Any, constant_value: Any = None, axes: Any = None, *, mode: str = "constant"
) -> Any:
    """Surround the data (negative: crop it): begins of all ``axes``, then ends.

    The input ``axes`` came with opset 18, the mode ``wrap`` with opset 19.
    """
    choice(mode, MODES, "mode")
    listed = tuple(range(data.ndim)) if axes is None else all_axes(ints(axes), data.ndim)
    counts = ints(pads)
    if len(counts) != 2 * len(listed):
        raise ValueError(f"pads has {len(counts)} values, expected two for each of {len(listed)} axes")
    around = [(0, 0)] * data.ndim
    for i, axis in enumerate(listed):
        around[axis] = (counts[i], counts[i + len(listed)])
    shape = bounded([d + b + e for d, (b, e) in zip(data.shape, around, strict=True)], data)
    data = data[
        tuple(slice(max(-b, 0), d - max(-e, 0)) for d, (b, e) in zip(data.shape, around, strict=True))
    ]
    around = [(max(b, 0), max(e, 0)) for b, e in around]
    if mode == "constant":
        return pad_constant(xp, data, around, shape, constant_value)
    for axis, (before, after) in enumerate(around):
        if before or after:
            data = xp.take(data, source_index(xp, data.shape[axis], before, after, mode), axis=axis)
    return data


def pad_constant(xp: Any, data: Any, around: Any, shape: tuple[int, ...], value: Any) -> Any:
    if value is None:
        fill: Any = "" if data.dtype.kind in "OUT" else 0
    else:
        fill = xp.reshape(value, (-1,))[0]
    result = xp.full(shape, fill, dtype=data.dtype)
    result[tuple(slice(b, b + d) for d, (b, _) in zip(data.shape, around, strict=True))] = data
    return result


def source_index(xp: Any, size: int, before: int, after: int, mode: str) -> Any:
    """For each padded position of an axis, the position that its value comes from."""
    if size == 0:
        raise ValueError(f"mode {mode!r} cannot pad an axis of size 0")
    index = xp.arange(-before, size + after)
    if mode == "edge" or size == 1:
        return xp.clip(index, 0, size - 1)
    if mode == "wrap":
        return index % size
    return size - 1 - xp.abs(size - 1 - index % (2 * size - 2))


@op("CenterCropPad", since=18)
def center_crop_pad(xp: Any, data: Any, shape: Any, *, axes: Sequence[int] | None = None) -> Any:
    """Crop or zero-pad each of ``axes`` to ``shape``, about the centre; an odd rest counts at the end."""
    listed = tuple(range(data.ndim)) if axes is None else all_axes(axes, data.ndim)
    wanted = ints(shape)
    if len(wanted) != len(listed):
        raise ValueError(f"shape has {len(wanted)} values for {len(listed)} axes")
    begins, ends = [], []
    for axis, want in zip(listed, wanted, strict=True):
        if want < 0:
            raise ValueError(f"shape holds the negative size {want}")
        more = want - data.shape[axis]
        begin = more // 2 if more >= 0 else -(-more // 2)
        begins.append(begin)
        ends.append(more - begin)
    return pad(xp, data, begins + ends, axes=listed)


@op("Trilu", since=14)
def trilu(xp: Any, x: Any, k: Any = None, *, upper: int = 1) -> Any:
    """Keep the upper (lower) triangle of each matrix, from diagonal k on; 0 (an empty string) elsewhere."""
    if x.ndim < 2:
        raise ValueError(f"expected a batch of matrices, got shape {x.shape}")
    rows, columns = x.shape[-2:]
    diagonal = 0 if k is None else max(-rows, min(columns, scalar(k, "k")))
    offset = xp.arange(columns)[None, :] - xp.arange(rows)[:, None]
    nothing = xp.asarray("" if x.dtype == object else 0, dtype=x.dtype)
    return xp.where(offset >= diagonal if upper else offset <= diagonal, x, nothing)


@op("ReverseSequence", since=10)
def reverse_sequence(xp: Any, x: Any, sequence_lens: Any, *, batch_axis: int = 1, time_axis: int = 0) -> Any:
    """Per batch item, the first ``sequence_lens`` steps in reverse, the others unchanged."""
    if {batch_axis, time_axis} != {0, 1} or x.ndim < 2:
        raise ValueError(f"batch_axis {batch_axis} and time_axis {time_axis} must be 0 and 1 of {x.shape}")
    batch, steps = x.shape[batch_axis], x.shape[time_axis]
    lengths = ints(sequence_lens)
    if len(lengths) != batch or not all(0 <= n <= steps for n in lengths):
        raise ValueError(f"sequence_lens {lengths} must be {batch} lengths in [0, {steps}]")
    time, length = xp.arange(steps), xp.asarray(lengths, dtype=xp.int64)[:, None]
    index = xp.where(time < length, length - 1 - time, time)
    item = xp.arange(batch)[:, None]
    return x[item, index] if time_axis else x[index.T, item.T]


@op("Col2Im", since=18)
def col2im(
    xp: Any,
    x: Any,
    image_shape: Any,
    block_shape: Any,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Any:
    """[N, C * block, L] -> [N, C, *image]: the sum of the blocks at their places in the image."""
    if x.dtype == object:
        raise ValueError("input holds text, which cannot be summed up")
    image, block = ints(image_shape), ints(block_shape)
    rank = len(image)
    dilations, strides = tuple(dilations or (1,) * rank), tuple(strides or (1,) * rank)
    pads = tuple(pads or (0,) * (2 * rank))
    if not len(block) == len(dilations) == len(strides) == len(pads) // 2 == rank:
        raise ValueError(f"image_shape {image}, block_shape {block} and the attributes disagree in rank")
    if min(*image, *block, *dilations, *strides) < 1 or min(pads) < 0:
        raise ValueError("sizes, dilations and strides must be positive, pads at least 0")
    padded = [n + pads[i] + pads[i + rank] for i, n in enumerate(image)]
    grid = [
        (p - d * (b - 1) - 1) // s + 1 for p, b, d, s in zip(padded, block, dilations, strides, strict=True)
    ]
    if x.ndim != 3 or x.shape[1] % prod(block) or x.shape[2] != prod(grid):
        raise ValueError(
            f"input {x.shape} does not hold blocks {block} at the {prod(grid)} places of {image}"
        )
    batch, channels = x.shape[0], x.shape[1] // prod(block)
    columns = xp.reshape(widened(xp, x), (batch, channels, *block, *grid))
    result = xp.zeros(bounded((batch, channels, *padded), x), dtype=columns.dtype)
    for position in product(*map(range, block)):
        place = (
            slice(p * d, p * d + s * (g - 1) + 1, s)
            for p, d, s, g in zip(position, dilations, strides, grid, strict=True)
        )
        result[(..., *place)] += columns[(slice(None), slice(None), *position)]
    inner = tuple(slice(pads[i], pads[i] + n) for i, n in enumerate(image))
    return xp.astype(result[(..., *inner)], x.dtype, copy=False)
