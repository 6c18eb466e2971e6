"""Operators on sequences (Python lists) and optionals (None when empty)."""

from __future__ import annotations

from typing import Any

from ._axes import ints, one_axis, scalar
from .operator import op
from .shape import concat, pieces


@op("SequenceConstruct", since=11)
def sequence_construct(xp: Any, *inputs: Any) -> Any:
    """The list of the inputs."""
    return list(inputs)


@op("SequenceEmpty", since=11)
def sequence_empty(xp: Any, *, dtype: int = 1) -> Any:
    """A list without elements; the element type is a matter of the model only."""
    return []


@op("SequenceLength", since=11)
def sequence_length(xp: Any, sequence: Any) -> Any:
    """The number of elements, an int64 scalar."""
    return xp.asarray(len(sequence), dtype=xp.int64)


@op("SequenceAt", since=11)
def sequence_at(xp: Any, sequence: Any, position: Any) -> Any:
    """The element at a position in [-n, n - 1]."""
    return sequence[place(position, len(sequence), len(sequence))]


@op("SequenceInsert", since=11)
def sequence_insert(xp: Any, sequence: Any, tensor: Any, position: Any = None) -> Any:
    """The list with the tensor before a position in [-n, n], or at the end."""
    n = len(sequence)
    at = n if position is None else place(position, n, n + 1)
    return [*sequence[:at], tensor, *sequence[at:]]


@op("SequenceErase", since=11)
def sequence_erase(xp: Any, sequence: Any, position: Any = None) -> Any:
    """The list without the element at a position in [-n, n - 1], or without the last."""
    at = place(-1 if position is None else position, len(sequence), len(sequence))
    return [*sequence[:at], *sequence[at + 1 :]]


def place(position: Any, length: int, end: int) -> int:
    """A position in [-length, end - 1], counted from the front."""
    at = position if isinstance(position, int) else scalar(position, "position")
    if not -length <= at < end:
        raise ValueError(f"position {at} is out of range [{-length}, {end - 1}] of a sequence of {length}")
    return at + length if at < 0 else at


@op("ConcatFromSequence", since=11)
def concat_from_sequence(xp: Any, sequence: Any, *, axis: int, new_axis: int = 0) -> Any:
    """The elements one after the other along ``axis``, or stacked along a new one."""
    if not sequence:
        raise ValueError("the sequence has no element to concatenate")
    if not new_axis:
        return concat(xp, *sequence, axis=axis)
    if len({x.shape for x in sequence}) > 1:
        raise ValueError(f"elements of the shapes {[x.shape for x in sequence]} cannot be stacked")
    return xp.stack(sequence, axis=one_axis(axis, sequence[0].ndim + 1))


@op("SplitToSequence", since=11)
def split_to_sequence(xp: Any, x: Any, split: Any = None, *, axis: int = 0, keepdims: int = 1) -> Any:
    """Consecutive parts of x along ``axis``: of one length (the last may be less), of many, or of 1.

    Only the parts of length 1 that no ``split`` asks for can lose their axis, with keepdims=0.
    """
    axis = one_axis(axis, x.ndim)
    size = x.shape[axis]
    if split is not None and split.ndim:
        lengths = ints(split)
        if sum(lengths) != size or any(n < 0 for n in lengths):
            raise ValueError(f"split {lengths} does not cover axis {axis} of size {size}")
        return list(pieces(x, lengths, axis))
    step = 1 if split is None else scalar(split, "split")
    if step < 1:
        raise ValueError(f"split is {step}, expected a positive length")
    parts = pieces(x, [min(step, size - start) for start in range(0, size, step)], axis)
    return [xp.squeeze(p, axis=axis) for p in parts] if split is None and not keepdims else list(parts)


@op("Optional", since=15)
def optional(xp: Any, value: Any = None, *, type: Any = None) -> Any:
    """An optional that holds the value, or nothing."""
    return value


@op("OptionalGetElement", since=15)
def optional_get_element(xp: Any, value: Any) -> Any:
    """What the optional holds; from opset 18 a tensor or sequence may stand for an optional that holds it."""
    if value is None:
        raise ValueError("the optional is empty")
    return value


@op("OptionalHasElement", since=15)
def optional_has_element(xp: Any, value: Any = None) -> Any:
    """Whether the optional holds something; from opset 18 the input may be a tensor, a sequence or absent."""
    return xp.asarray(value is not None)
