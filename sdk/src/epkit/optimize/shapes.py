"""What is certain about shapes: a dimension that is only named equals itself, an unnamed one nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence

import onnx_ir as ir

from ..model.infer import INVENTED

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


def terms(dim: Dim) -> tuple[int, str | None]:
    """A dimension as a number times a name: ``4*batch`` is 4 and batch, ``batch`` 1 and batch, 4 is 4 and None.

    That is how torch's exporter names what it computes from dimensions, too. An unnamed one is 1 and None.
    """
    if isinstance(dim, int):
        return dim, None
    product = re.fullmatch(r"(\d+)\*(\w+)", str(dim.value))
    return (int(product[1]), product[2]) if product is not None else (1, dim.value)


def times(count: int, name: str | None) -> Dim:
    """What ``terms`` takes apart. Names that inference made up are not multiplied: they change when it runs again."""
    if name is None:
        return count
    if count == 1:
        return ir.SymbolicDim(name)
    return ir.SymbolicDim(None if name.startswith(INVENTED) or not name.isidentifier() else f"{count}*{name}")


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
