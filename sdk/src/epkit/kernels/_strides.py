"""Fewer axes, where every operand walks through neighbouring ones in one stride: for kernels that get strides."""

from __future__ import annotations

from collections.abc import Sequence


def collapse(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """Join neighbouring axes that all operands walk through in one stride; axes of size 1 go.

    Args:
        shape: of the result.
        strides: of every operand, for every axis; 0 where it is broadcast.

    Returns:
        The sizes of the remaining axes, and each operand's strides along them.
    """
    dims: list[int] = []
    kept: list[list[int]] = [[] for _ in strides]
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        joins = bool(dims) and all(
            own[-1] == other[axis] * size for own, other in zip(kept, strides, strict=True)
        )
        dims[-1:] = [dims[-1] * size] if joins else [*dims[-1:], size]
        for own, other in zip(kept, strides, strict=True):
            own[-1:] = [other[axis]] if joins else [*own[-1:], other[axis]]
    return dims, kept
