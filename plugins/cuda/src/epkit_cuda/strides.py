"""How elements of one shape are found in arrays of other shapes, and where the matrices of an array lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


def walk(array: Any, target: Sequence[int]) -> list[int]:
    """Steps (in elements) by which an array is read under the shape that it is broadcast to."""
    missing = len(target) - len(array.shape)
    each = array.dtype.itemsize
    own = [0 if size == 1 else step // each for size, step in zip(array.shape, array.strides, strict=True)]
    return [0] * missing + own


@dataclass(frozen=True)
class Matrices:
    """Where the matrices of an array [batch, rows, columns] lie, as libraries are told it.

    Attributes:
        rows, columns, batch: sizes; ``batch`` is 1 for one matrix.
        leading: elements from one row to the next; from one column to the next if ``transposed``.
        step: elements from one matrix to the next; 0 where all are the same one.
        transposed: True if columns, not rows, are dense.
    """

    rows: int
    columns: int
    batch: int
    leading: int
    step: int
    transposed: bool


def matrices_of(array: Any) -> Matrices | None:
    """The matrices of an array of two or three axes; None where neither rows nor columns are dense."""
    each = array.dtype.itemsize
    batch = array.shape[0] if array.ndim == 3 else 1
    step = array.strides[0] // each if batch > 1 else 0
    rows, columns = array.shape[-2:]
    down, along = (stride // each for stride in array.strides[-2:])
    if (columns == 1 or along == 1) and (rows == 1 or down >= columns):
        return Matrices(rows, columns, batch, columns if rows == 1 else down, step, False)
    if (rows == 1 or down == 1) and (columns == 1 or along >= rows):
        return Matrices(rows, columns, batch, rows if columns == 1 else along, step, True)
    return None
