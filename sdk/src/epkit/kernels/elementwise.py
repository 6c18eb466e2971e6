"""Operators of one tensor, element by element: signs, rounding, powers, logarithms, trigonometry.

``consumed_inputs`` of opset 1 says what may be overwritten; it has no meaning here.
"""

from __future__ import annotations

from typing import Any

from ._dtypes import is_integer
from ._erf import erf
from ._pointwise import convert, pointwise
from .operator import op


@op("Neg", since=1)
@pointwise
def neg(xp: Any, x: Any) -> Any:
    """y = -x."""
    return xp.negative(x)


@op("Abs", since=1)
@pointwise
def absolute(xp: Any, x: Any) -> Any:
    """y = |x|."""
    return xp.abs(x)


@op("Sign", since=9)
@pointwise
def sign(xp: Any, x: Any) -> Any:
    """y = 1, 0 or -1 as x is positive, zero or negative; NaN stays NaN."""
    return xp.sign(x)


@op("Floor", since=1)
@pointwise
def floor(xp: Any, x: Any) -> Any:
    """y = the largest whole number <= x."""
    return xp.floor(x)


@op("Ceil", since=1)
@pointwise
def ceil(xp: Any, x: Any) -> Any:
    """y = the smallest whole number >= x."""
    return xp.ceil(x)


@op("Round", since=11)
@pointwise
def round_(xp: Any, x: Any) -> Any:
    """y = the whole number next to x, halves to the even one."""
    return xp.round(x)


@op("Reciprocal", since=1)
@pointwise
def reciprocal(xp: Any, x: Any) -> Any:
    """y = 1 / x."""
    return xp.divide(1.0, x)


@op("Sqrt", since=1)
@pointwise
def sqrt(xp: Any, x: Any) -> Any:
    """y = x^(1/2), NaN for x < 0."""
    return xp.sqrt(x)


@op("Exp", since=1)
@pointwise
def exp(xp: Any, x: Any) -> Any:
    """y = e^x."""
    return xp.exp(x)


@op("Log", since=1)
@pointwise
def log(xp: Any, x: Any) -> Any:
    """y = ln x, NaN for x < 0."""
    return xp.log(x)


@op("Erf", since=9)
@pointwise
def error_function(xp: Any, x: Any) -> Any:
    """y = erf x = 2 / sqrt(pi) times the integral of exp(-t²) from 0 to x."""
    if is_integer(x.dtype):  # the standard allows them; the result has their type
        return convert(xp, erf(xp, xp.astype(x, xp.float64)), x.dtype)
    return erf(xp, x)


@op("Sin", since=7)
@pointwise
def sin(xp: Any, x: Any) -> Any:
    """y = sin x."""
    return xp.sin(x)


@op("Cos", since=7)
@pointwise
def cos(xp: Any, x: Any) -> Any:
    """y = cos x."""
    return xp.cos(x)


@op("Tan", since=7)
@pointwise
def tan(xp: Any, x: Any) -> Any:
    """y = tan x."""
    return xp.tan(x)


@op("Asin", since=7)
@pointwise
def asin(xp: Any, x: Any) -> Any:
    """y = arcsin x, NaN outside [-1, 1]."""
    return xp.asin(x)


@op("Acos", since=7)
@pointwise
def acos(xp: Any, x: Any) -> Any:
    """y = arccos x, NaN outside [-1, 1]."""
    return xp.acos(x)


@op("Atan", since=7)
@pointwise
def atan(xp: Any, x: Any) -> Any:
    """y = arctan x."""
    return xp.atan(x)


@op("Sinh", since=9)
@pointwise
def sinh(xp: Any, x: Any) -> Any:
    """y = (e^x - e^-x) / 2."""
    return xp.sinh(x)


@op("Cosh", since=9)
@pointwise
def cosh(xp: Any, x: Any) -> Any:
    """y = (e^x + e^-x) / 2."""
    return xp.cosh(x)


@op("Asinh", since=9)
@pointwise
def asinh(xp: Any, x: Any) -> Any:
    """y = ln(x + sqrt(x² + 1))."""
    return xp.asinh(x)


@op("Acosh", since=9)
@pointwise
def acosh(xp: Any, x: Any) -> Any:
    """y = ln(x + sqrt(x² - 1)), NaN for x < 1."""
    return xp.acosh(x)


@op("Atanh", since=9)
@pointwise
def atanh(xp: Any, x: Any) -> Any:
    """y = ln((1 + x) / (1 - x)) / 2."""
    return xp.atanh(x)


@op("IsNaN", since=9)
@pointwise
def is_nan(xp: Any, x: Any) -> Any:
    """y = whether x is NaN."""
    return xp.isnan(x)


@op("IsInf", since=10)
@pointwise
def is_inf(xp: Any, x: Any, *, detect_negative: int = 1, detect_positive: int = 1) -> Any:
    """y = whether x is infinite, counting the signs that the attributes ask for."""
    if detect_negative and detect_positive:
        return xp.isinf(x)
    if detect_positive:
        return x == float("inf")
    if detect_negative:
        return x == float("-inf")
    return xp.zeros(x.shape, dtype=xp.bool)
