"""What all element-by-element operators share: precision, broadcasting of old opsets, argument checks."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from ._dtypes import is_narrow_float

Function = Callable[..., Any]


def pointwise(function: Function) -> Function:
    """Compute floats of under 32 bits in float32 and round once; NaN, infinity and overflow do not warn."""

    @wraps(function)
    def run(xp: Any, *inputs: Any, **attributes: Any) -> Any:
        dtype = next(x.dtype for x in inputs if x is not None)
        narrow = is_narrow_float(dtype)
        with np.errstate(all="ignore"):
            if narrow:
                inputs = tuple(widen(xp, x) for x in inputs)
            result = xp.asarray(function(xp, *inputs, **attributes))
            return xp.astype(result, dtype) if narrow and result.dtype == xp.float32 else result

    return run


def widen(xp: Any, x: Any) -> Any:
    """A narrow float array as float32; anything else as it is."""
    return xp.astype(x, xp.float32) if x is not None and is_narrow_float(x.dtype) else x


def convert(xp: Any, x: Any, dtype: Any) -> Any:
    """``x`` (an array or a scalar of the namespace) in ``dtype``, without a copy where it has it already."""
    x = xp.asarray(x)
    return x if x.dtype == dtype else xp.astype(x, dtype)


def limited(function: Function) -> Function:
    """The opset 1 to 6 form of a binary operator: B broadcasts into A only, where ``broadcast`` says so."""

    def run(xp: Any, a: Any, b: Any, *, axis: int | None = None, broadcast: int = 0) -> Any:
        return function(xp, a, aligned(xp, a, b, axis) if broadcast else same_shape(a, b))

    run.__doc__ = (
        f"{function.__doc__} Opsets 1 to 6: with ``broadcast``, B's shape is part of A's, from ``axis`` on."
    )
    return run


def aligned(xp: Any, a: Any, b: Any, axis: int | None) -> Any:
    """``b`` with its axes moved to where ``a`` has them from ``axis`` on (the last ones by default)."""
    if b.size == 1:
        return xp.reshape(b, ())
    start = a.ndim - b.ndim if axis is None else checked_axis(axis, a.ndim)
    trailing = a.ndim - start - b.ndim
    pairs = zip(b.shape, a.shape[start:], strict=False)
    if start < 0 or trailing < 0 or any(n not in (1, m) for n, m in pairs):
        raise ValueError(
            f"input B of shape {b.shape} is no part of the shape {a.shape} of A from axis {axis}"
        )
    return xp.reshape(b, b.shape + (1,) * trailing)


def same_shape(a: Any, *others: Any) -> Any:
    """The last argument, after checking that all have one shape."""
    for b in others:
        if b.shape != a.shape:
            raise ValueError(
                f"inputs of shapes {a.shape} and {b.shape} must have the same shape (no broadcasting)"
            )
    return others[-1] if others else a


def checked_axis(axis: int, rank: int, name: str = "axis") -> int:
    """``axis`` counted from the front.

    Raises:
        ValueError: if it is outside [-rank, rank).
    """
    if not -rank <= axis < rank:
        raise ValueError(f"attribute {name}={axis} is out of range for a tensor of rank {rank}")
    return axis % rank


def scalar(xp: Any, x: Any, name: str) -> Any:
    """The array of one element ``x`` without axes."""
    if x.size != 1:
        raise ValueError(f"input {name} must hold one element, it has shape {x.shape}")
    return xp.reshape(x, ())
