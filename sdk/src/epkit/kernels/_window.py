"""Sliding windows over the spatial axes: sizes, padding and the slices that convolution and pooling read."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ._bounds import bounded

Ints = Sequence[int]


@dataclass(frozen=True)
class Window:
    """Where a kernel reads, per spatial axis; ``begin`` and ``end`` are the padding on the two sides."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    output: tuple[int, ...]

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.kernel)

    def span(self, axis: int, tap: int, outputs: int | None = None) -> slice:
        """The padded positions that kernel position ``tap`` reads along ``axis``, one for each output."""
        start, stride = tap * self.dilations[axis], self.strides[axis]
        count = self.output[axis] if outputs is None else outputs
        return slice(start, start + (count - 1) * stride + 1 if count else start, stride)


def per_axis(name: str, values: Ints | None, rank: int, default: int, least: int) -> tuple[int, ...]:
    """An attribute with one integer per spatial axis, checked."""
    result = (default,) * rank if not values else tuple(int(v) for v in values)
    if len(result) != rank:
        raise ValueError(f"attribute {name}={list(result)} should have {rank} values, one per spatial axis")
    if any(v < least for v in result):
        raise ValueError(f"attribute {name}={list(result)} has a value below {least}")
    return result


def two_sides(pads: Ints | None, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """``pads`` as (at the begin, at the end) of each axis."""
    both = per_axis("pads", pads, 2 * rank, 0, 0)
    return both[:rank], both[rank:]


def split_padding(total: int, auto_pad: str) -> tuple[int, int]:
    """Padding in two halves; the odd one goes to the end for SAME_UPPER, otherwise to the begin."""
    less, more = total // 2, total - total // 2
    return (less, more) if auto_pad == "SAME_UPPER" else (more, less)


def check_auto_pad(auto_pad: str) -> str:
    """The attribute with its empty spelling resolved."""
    if auto_pad not in ("", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise ValueError(f"attribute auto_pad={auto_pad!r} is not NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    return auto_pad or "NOTSET"


def window(
    sizes: Ints,
    kernel: Ints,
    *,
    strides: Ints | None,
    dilations: Ints | None,
    pads: Ints | None,
    auto_pad: str,
    ceil_mode: int = 0,
) -> Window:
    """The window of a kernel over an input with these spatial sizes.

    With ``ceil_mode`` a last window may reach past the end, but not start there.
    """
    rank = len(sizes)
    auto_pad = check_auto_pad(auto_pad)
    kernel = per_axis("kernel_shape", kernel, rank, 1, 1)
    strides = per_axis("strides", strides, rank, 1, 1)
    dilations = per_axis("dilations", dilations, rank, 1, 1)
    begin, end = two_sides(pads if auto_pad == "NOTSET" else None, rank)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if auto_pad.startswith("SAME"):
        output = tuple(-(-size // s) for size, s in zip(sizes, strides, strict=True))
        totals = [
            max((o - 1) * s + r - size, 0)
            for o, s, r, size in zip(output, strides, reach, sizes, strict=True)
        ]
        sides = [split_padding(total, auto_pad) for total in totals]
        begin, end = tuple(a for a, _ in sides), tuple(b for _, b in sides)
        return Window(kernel, strides, dilations, begin, end, output)
    output = tuple(
        output_size(*axis, ceil_mode) for axis in zip(sizes, begin, end, reach, strides, strict=True)
    )
    return Window(kernel, strides, dilations, begin, end, output)


def output_size(size: int, begin: int, end: int, reach: int, stride: int, ceil_mode: int) -> int:
    """The number of windows along one axis."""
    room = size + begin + end - reach
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    if count < 1:
        raise ValueError(
            f"the kernel reaches over {reach} elements of an axis with {size}, padding {begin} + {end}"
        )
    return count - 1 if ceil_mode and (count - 1) * stride >= size + begin else count


def pad(xp: Any, x: Any, w: Window, value: Any = 0) -> Any:
    """``x`` with its spatial axes padded far enough for every window, and no further than windows read."""
    sizes = x.shape[x.ndim - w.rank :]
    needed = [
        (o - 1) * s + (k - 1) * d + 1
        for o, s, k, d in zip(w.output, w.strides, w.kernel, w.dilations, strict=True)
    ]
    total = [max(n, b + size) for n, b, size in zip(needed, w.begin, sizes, strict=True)]
    if list(sizes) == total:
        return x
    shape = bounded((*x.shape[: x.ndim - w.rank], *total), x, "the padded input")
    result = xp.full(shape, value, dtype=x.dtype)
    result[(..., *(slice(b, b + size) for b, size in zip(w.begin, sizes, strict=True)))] = x
    return result


def taps(padded: Any, w: Window) -> Iterator[Any]:
    """For each kernel position in row-major order, the view of what it reads: (..., *output)."""
    for position in itertools.product(*map(range, w.kernel)):
        yield padded[(..., *(w.span(axis, tap) for axis, tap in enumerate(position)))]


def along_channels(xp: Any, vector: Any, ndim: int) -> Any:
    """A vector over channels, shaped to broadcast over axis 1 of an array with ``ndim`` axes."""
    return xp.reshape(vector, (1, -1) + (1,) * (ndim - 2))


def volume(sizes: Ints) -> int:
    """The number of elements of an array of these sizes."""
    return math.prod(sizes)
