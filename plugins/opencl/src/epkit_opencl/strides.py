"""How elements of one shape are found in tensors of other shapes: strides, and fewer axes where they allow it."""

from __future__ import annotations

from collections.abc import Sequence

LARGEST = 2**31 - 1
"""Elements; kernels count in 32 bits."""


def contiguous(shape: Sequence[int]) -> list[int]:
    """Element strides of a dense tensor."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return strides[::-1]


def broadcast(shape: Sequence[int], target: Sequence[int]) -> list[int]:
    """Strides by which a dense tensor is read under the shape that it is broadcast to."""
    missing = len(target) - len(shape)
    own = contiguous(shape)
    return [0] * missing + [0 if size == 1 else step for size, step in zip(shape, own, strict=True)]


def collapse(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """Join neighbouring axes that all operands walk through in one stride; axes of size 1 go.

    Raises:
        ValueError: if there are more elements than kernels can count.
    """
    total = 1
    for size in shape:
        total *= size
    if total > LARGEST:
        raise ValueError(f"a tensor of {total} elements exceeds the {LARGEST} that the kernels count")
    dims: list[int] = []
    kept: list[list[int]] = [[] for _ in strides]
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        if dims and all(own[-1] == other[axis] * size for own, other in zip(kept, strides, strict=True)):
            dims[-1] *= size
            for own, other in zip(kept, strides, strict=True):
                own[-1] = other[axis]
        else:
            dims.append(size)
            for own, other in zip(kept, strides, strict=True):
                own.append(other[axis])
    return dims, kept
