"""What is certain about shapes: a dimension that is only named equals itself, an unnamed one nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence

import onnx_ir as ir

Dim = int | ir.SymbolicDim


def rank_of(value: ir.Value | None) -> int | None:
    """The number of axes, or None where it is unknown."""
    return None if value is None or value.shape is None else len(value.shape)


def same_dim(one: Dim, other: Dim) -> bool:
    """Whether two dimensions are equal for certain."""
    if isinstance(one, int) or isinstance(other, int):
        return bool(one == other)
    return one.value is not None and one.value == other.value


def fits_dim(part: Dim, whole: Dim) -> bool:
    """Whether a dimension that goes with another for certain is the same: the first n of ``whole`` are all of them.

    ``Min(n, whole)`` is the length of a table's part. Where both are added, multiplied or compared, and there is no
    error, n is no less.
    """
    if same_dim(part, whole) or isinstance(part, int) or isinstance(whole, int) or part.value is None:
        return same_dim(part, whole)
    most = re.fullmatch(r"Min\((\d+), (.+)\)", str(part.value))
    return most is not None and int(most[1]) > 1 and most[2] == whole.value


def same_dims(one: Sequence[Dim], other: Sequence[Dim]) -> bool:
    """Whether two shapes are equal for certain."""
    return len(one) == len(other) and all(same_dim(a, b) for a, b in zip(one, other, strict=True))


def same_shape(one: ir.Value, other: ir.Value) -> bool:
    """Whether two values have one shape for certain."""
    if one is other:
        return True
    return one.shape is not None and other.shape is not None and same_dims(list(one.shape), list(other.shape))


def is_vector_for(vector: ir.Value, data: ir.Value) -> bool:
    """Whether ``vector`` has one axis, as long as the last axis of ``data``."""
    if vector.shape is None or data.shape is None or len(vector.shape) != 1 or not len(data.shape):
        return False
    return same_dim(vector.shape[0], data.shape[-1])


def dims_text(value: ir.Value) -> str:
    """``x [batch, 8]`` for messages."""
    return f"{value.name} {'of unknown shape' if value.shape is None else value.shape}"
