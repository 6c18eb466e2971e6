"""Checked axes and small integer inputs, shared by the families that move data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def ints(values: Any) -> tuple[int, ...]:
    """A small integer tensor (any rank), or an attribute, as Python integers."""
    if hasattr(values, "reshape"):
        values = values.reshape(-1).tolist()
    return tuple(int(v) for v in values)


def scalar(value: Any, name: str) -> int:
    """The single integer that a scalar input (or one of shape [1]) holds."""
    if (found := ints(value)) and len(found) == 1:
        return found[0]
    raise ValueError(f"{name} must hold one value, got {len(found)}")


def one_axis(axis: int, rank: int, name: str = "axis") -> int:
    """``axis`` counted from the front."""
    if not -rank <= axis < rank:
        raise ValueError(f"{name} {axis} is out of range for rank {rank}")
    return axis % rank


def all_axes(axes: Iterable[int], rank: int, name: str = "axes") -> tuple[int, ...]:
    """Distinct ``axes`` counted from the front."""
    result = tuple(one_axis(axis, rank, name) for axis in axes)
    if len(set(result)) != len(result):
        raise ValueError(f"{name} {tuple(axes)} repeats an axis of rank {rank}")
    return result


def choice(value: str, allowed: Sequence[str], name: str) -> str:
    """``value``, if it is one of those that the attribute ``name`` may have."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(repr, allowed))}")
    return value


def in_range(xp: Any, indices: Any, size: int, name: str = "indices") -> Any:
    """``indices`` into a dimension of ``size``, counted from the front.

    Raises:
        ValueError: if one is outside [-size, size - 1].
    """
    if 0 in indices.shape:
        return indices
    low, high = int(xp.min(indices)), int(xp.max(indices))
    if low < -size or high >= size:
        raise ValueError(f"{name} hold {low if low < -size else high}, outside [{-size}, {size - 1}]")
    return xp.where(indices < 0, indices + size, indices) if low < 0 else indices


def wide_type(xp: Any, x: Any) -> Any:
    """The type that x is computed in: float32 for narrower floats (and types of ml_dtypes), else its own."""
    narrow = x.dtype.kind in "fV" and x.dtype.itemsize <= 2
    return xp.float32 if narrow else x.dtype


def widened(xp: Any, x: Any) -> Any:
    """``x`` in the type that it is computed in."""
    return xp.astype(x, wide_type(xp, x), copy=False)
