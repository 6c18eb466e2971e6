"""How elements of one shape are found in tensors of other shapes: strides, and fewer axes where they allow it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from epkit.kernels._strides import collapse

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


def collapsed(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """The axes that remain where all operands walk through neighbouring ones in one stride.

    Raises:
        ValueError: if there are more elements than kernels can count.
    """
    total = math.prod(shape)
    if total > LARGEST:
        raise ValueError(f"a tensor of {total} elements exceeds the {LARGEST} that the kernels count")
    return collapse(shape, strides)
