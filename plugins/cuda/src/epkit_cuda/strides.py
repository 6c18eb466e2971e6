"""How elements of one shape are found in arrays of other shapes: steps, and fewer axes where they allow it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def walk(array: Any, target: Sequence[int]) -> list[int]:
    """Steps (in elements) by which an array is read under the shape that it is broadcast to."""
    missing = len(target) - len(array.shape)
    each = array.dtype.itemsize
    own = [0 if size == 1 else step // each for size, step in zip(array.shape, array.strides, strict=True)]
    return [0] * missing + own


def collapse(shape: Sequence[int], steps: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """Join neighbouring axes that every operand walks through in one step; axes of size 1 go."""
    dims: list[int] = []
    kept: list[list[int]] = [[] for _ in steps]
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        joins = dims and all(own[-1] == other[axis] * size for own, other in zip(kept, steps, strict=True))
        if joins:
            dims[-1] *= size
        else:
            dims.append(size)
        for own, other in zip(kept, steps, strict=True):
            own[-1:] = [other[axis]] if joins else [*own[-1:], other[axis]]
    return dims, kept
