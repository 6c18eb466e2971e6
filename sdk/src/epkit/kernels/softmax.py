"""Softmax and its relatives.

Before opset 13 they take the input as a matrix, whose rows are the axes before ``axis``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ._pointwise import checked_axis, pointwise
from .operator import op


@op("Softmax", since=13)
def softmax(xp: Any, x: Any, *, axis: int = -1) -> Any:
    """y = e^x / sum of e^x along the axis; narrow floats are rounded after each step, as in ONNX's function body."""
    e = exponential(xp, x, axis=axis)
    return quotient(xp, e, total(xp, e, axis=axis))


@pointwise
def exponential(xp: Any, x: Any, *, axis: int) -> Any:
    """e^(x - max) along the axis."""
    return xp.exp(shifted(xp, x, axis))


@pointwise
def total(xp: Any, x: Any, *, axis: int) -> Any:
    """The sum along the axis, which stays."""
    return xp.sum(x, axis=axis, keepdims=True)


@pointwise
def quotient(xp: Any, a: Any, b: Any) -> Any:
    """a / b."""
    del xp
    return a / b


@op("LogSoftmax", since=13)
@pointwise
def log_softmax(xp: Any, x: Any, *, axis: int = -1) -> Any:
    """y = x - ln(sum of e^x along the axis)."""
    x = shifted(xp, x, axis)
    return x - xp.log(xp.sum(xp.exp(x), axis=axis, keepdims=True))


@op("Hardmax", since=13)
@pointwise
def hardmax(xp: Any, x: Any, *, axis: int = -1) -> Any:
    """y = 1 at the first largest value along the axis, 0 elsewhere."""
    axis = checked_axis(axis, x.ndim)
    if x.size == 0:
        return xp.zeros_like(x)
    positions = xp.reshape(xp.arange(x.shape[axis]), (-1,) + (1,) * (x.ndim - 1 - axis))
    first = xp.expand_dims(xp.argmax(x, axis=axis), axis=axis)
    return xp.astype(first == positions, x.dtype)


def shifted(xp: Any, x: Any, axis: int) -> Any:
    """``x`` minus its largest value along the axis, which no exponential overflows for."""
    axis = checked_axis(axis, x.ndim)
    return x - xp.max(x, axis=axis, keepdims=True) if x.size else x


def flattened(function: Callable[..., Any]) -> Callable[..., Any]:
    """The opset 1 to 12 form: along all axes from ``axis`` on, taken as one."""

    def run(xp: Any, x: Any, *, axis: int = 1) -> Any:
        axis = x.ndim if axis == x.ndim else checked_axis(axis, x.ndim)
        matrix = xp.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))
        return xp.reshape(function(xp, matrix, axis=1), x.shape)

    run.__doc__ = f"{function.__doc__} Opsets 1 to 12: along all axes from ``axis`` on, taken as one."
    return run


for _name, _function in (("Softmax", softmax), ("LogSoftmax", log_softmax), ("Hardmax", hardmax)):
    op(_name, since=1)(flattened(_function))
