"""Comparison, Boolean logic and choice."""

from __future__ import annotations

from typing import Any

from ._pointwise import limited, pointwise
from .operator import op


@op("Equal", since=7)
@pointwise
def equal(xp: Any, a: Any, b: Any) -> Any:
    """c = (a = b); since opset 19 strings too."""
    return xp.equal(a, b)


@op("Greater", since=7)
@pointwise
def greater(xp: Any, a: Any, b: Any) -> Any:
    """c = (a > b)."""
    return xp.greater(a, b)


@op("GreaterOrEqual", since=12)
@pointwise
def greater_or_equal(xp: Any, a: Any, b: Any) -> Any:
    """c = (a >= b)."""
    return xp.greater_equal(a, b)


@op("Less", since=7)
@pointwise
def less(xp: Any, a: Any, b: Any) -> Any:
    """c = (a < b)."""
    return xp.less(a, b)


@op("LessOrEqual", since=12)
@pointwise
def less_or_equal(xp: Any, a: Any, b: Any) -> Any:
    """c = (a <= b)."""
    return xp.less_equal(a, b)


@op("And", since=7)
@pointwise
def logical_and(xp: Any, a: Any, b: Any) -> Any:
    """c = a and b."""
    return xp.logical_and(a, b)


@op("Or", since=7)
@pointwise
def logical_or(xp: Any, a: Any, b: Any) -> Any:
    """c = a or b."""
    return xp.logical_or(a, b)


@op("Xor", since=7)
@pointwise
def logical_xor(xp: Any, a: Any, b: Any) -> Any:
    """c = one of a and b, not both."""
    return xp.logical_xor(a, b)


@op("Not", since=1)
@pointwise
def logical_not(xp: Any, x: Any) -> Any:
    """y = not x."""
    return xp.logical_not(x)


for _name, _function in (
    ("Equal", equal),
    ("Greater", greater),
    ("Less", less),
    ("And", logical_and),
    ("Or", logical_or),
    ("Xor", logical_xor),
):
    op(_name, since=1)(limited(_function))


@op("Where", since=9)
def where(xp: Any, condition: Any, x: Any, y: Any) -> Any:
    """z = x where the condition holds, y elsewhere, with broadcasting of all three."""
    return xp.asarray(xp.where(condition, x, y))
