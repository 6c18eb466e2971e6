"""Operators of two or more tensors, element by element: arithmetic, extremes, shifts and bits."""

from __future__ import annotations

from functools import reduce
from typing import Any

from ._dtypes import bits_of, is_float, is_integer, is_unsigned
from ._pointwise import convert, limited, pointwise, same_shape, scalar
from .operator import op


@op("Add", since=7)
@pointwise
def add(xp: Any, a: Any, b: Any) -> Any:
    """c = a + b; integers wrap around."""
    return xp.add(a, b)


@op("Sub", since=7)
@pointwise
def subtract(xp: Any, a: Any, b: Any) -> Any:
    """c = a - b; integers wrap around."""
    return xp.subtract(a, b)


@op("Mul", since=7)
@pointwise
def multiply(xp: Any, a: Any, b: Any) -> Any:
    """c = a b; integers wrap around."""
    return xp.multiply(a, b)


@op("Div", since=7)
@pointwise
def divide(xp: Any, a: Any, b: Any) -> Any:
    """c = a / b; integers are truncated towards zero."""
    if not is_integer(a.dtype):
        return xp.divide(a, b)
    refuse_zero(xp, b)
    if is_unsigned(a.dtype):
        return xp.floor_divide(a, b)
    return xp.floor_divide(xp.subtract(a, xp.fmod(a, b)), b)


@op("Mod", since=10)
@pointwise
def modulo(xp: Any, a: Any, b: Any, *, fmod: int = 0, opset: int) -> Any:
    """c = a - floor(a / b) b, or a - trunc(a / b) b if fmod = 1. Before opset 28 floats need fmod = 1."""
    if is_integer(a.dtype):
        refuse_zero(xp, b)
    elif not fmod and opset < 28:
        raise ValueError(f"attribute fmod=0 is for integers before opset 28, the inputs are {a.dtype}")
    return xp.fmod(a, b) if fmod else xp.remainder(a, b)


def refuse_zero(xp: Any, divisor: Any) -> None:
    if not xp.all(divisor != 0):
        raise ValueError("input B holds a zero: integer division by zero")


@op("Pow", since=7)
@pointwise
def power(xp: Any, x: Any, y: Any) -> Any:
    """z = x^y in the type of x; since opset 12 y may have another type."""
    if y.size == 1 and (small := small_power(xp, x, y)) is not None:
        return small
    if is_integer(x.dtype) and is_integer(y.dtype):
        return integer_power(xp, x, y)
    exact = is_float(y.dtype) or xp.all(xp.abs(y) <= 2**24)
    wide = not exact or xp.float64 in (x.dtype, y.dtype) or is_integer(x.dtype)
    common = xp.float64 if wide else xp.float32
    return convert(xp, xp.pow(convert(xp, x, common), convert(xp, y, common)), x.dtype)


def small_power(xp: Any, x: Any, y: Any) -> Any:
    """x² or x³ by multiplication, if that is what ``y`` asks for."""
    exponent = float(xp.reshape(y, ()))
    if exponent not in (2.0, 3.0):
        return None
    z = x * x if exponent == 2.0 else x * x * x
    return xp.broadcast_to(z, (1,) * max(0, y.ndim - x.ndim) + z.shape)


def integer_power(xp: Any, x: Any, y: Any) -> Any:
    """x^y exactly (modulo 2^bits); a negative power of a number other than 1 and -1 is truncated to 0."""
    negative = y < 0
    if xp.any(negative & (x == 0)):
        raise ValueError("input X holds a zero where the exponent Y is negative")
    size = xp.maximum(y, 0) if is_unsigned(y.dtype) else xp.abs(y)
    unit = (x == 1) | (x == -1) if not is_unsigned(x.dtype) else x == 1
    # numpy's pow has no mixed signs: the exponent's own bits carry it, in the type of x where it fits
    if xp.any(size > xp.iinfo(x.dtype).max):
        size = xp.where(size > 64, 64 + size % 2, size)  # the same parity; every even base has wrapped to 0
    result = xp.pow(x, convert(xp, size, x.dtype))
    return xp.where(negative & ~unit, xp.zeros_like(result), result)


for _name, _function in (("Add", add), ("Sub", subtract), ("Mul", multiply), ("Div", divide), ("Pow", power)):
    op(_name, since=1)(limited(_function))


@op("Max", since=8)
@pointwise
def maximum(xp: Any, *inputs: Any) -> Any:
    """The largest of the inputs, with broadcasting; NaN wins."""
    return reduce(xp.maximum, inputs)


@op("Min", since=8)
@pointwise
def minimum(xp: Any, *inputs: Any) -> Any:
    """The smallest of the inputs, with broadcasting; NaN wins."""
    return reduce(xp.minimum, inputs)


@op("Sum", since=8)
@pointwise
def total(xp: Any, *inputs: Any) -> Any:
    """The sum of the inputs, with broadcasting."""
    return reduce(xp.add, inputs)


@op("Mean", since=8)
@pointwise
def mean(xp: Any, *inputs: Any) -> Any:
    """The sum of the inputs divided by their number, with broadcasting."""
    return reduce(xp.add, inputs) / len(inputs)


def unbroadcast(function: Any) -> Any:
    """The opset 1 to 7 form of a variadic operator: all inputs have one shape."""

    def run(xp: Any, *inputs: Any) -> Any:
        same_shape(*inputs)
        return function(xp, *inputs)

    run.__doc__ = f"{function.__doc__} Opsets 1 to 7: without broadcasting."
    return run


for _name, _function in (("Max", maximum), ("Min", minimum), ("Sum", total), ("Mean", mean)):
    op(_name, since=1)(unbroadcast(_function))


@op("Clip", since=11)
@pointwise
def clip(xp: Any, x: Any, low: Any = None, high: Any = None) -> Any:
    """y = min(max(x, low), high); high wins where low > high; an absent bound does not bound."""
    if low is not None:
        x = xp.maximum(x, scalar(xp, low, "min"))
    return x if high is None else xp.minimum(x, scalar(xp, high, "max"))


LARGEST = 3.4028234663852886e38
"""The largest float32, the default bound of opset 6."""


@op("Clip", since=6)
@pointwise
def clip_6(xp: Any, x: Any, *, max: float = LARGEST, min: float = -LARGEST) -> Any:
    """y = min(max(x, min), max), the bounds being attributes."""
    return xp.minimum(xp.maximum(x, xp.asarray(min, dtype=x.dtype)), xp.asarray(max, dtype=x.dtype))


@op("Clip", since=1)
@pointwise
def clip_1(xp: Any, x: Any, *, max: float = float("inf"), min: float = float("-inf")) -> Any:
    """y = min(max(x, min), max), the bounds being attributes without a default."""
    return clip_6(xp, x, max=max, min=min)


@op("BitShift", since=11)
@pointwise
def bit_shift(xp: Any, x: Any, y: Any, *, direction: str) -> Any:
    """z = x shifted by y bits; a shift by all bits or more, or by fewer than 0, leaves only the sign."""
    if direction not in ("LEFT", "RIGHT"):
        raise ValueError(f"attribute direction={direction!r} is neither 'LEFT' nor 'RIGHT'")
    bits = bits_of(x.dtype)
    outside = (y >= bits) | (y < 0)
    amount = xp.where(outside, bits - 1, y)
    if direction == "LEFT":
        z = xp.bitwise_left_shift(x, amount)
        return xp.where(outside, xp.zeros_like(z), z)
    z = xp.bitwise_right_shift(x, amount)
    return xp.where(outside, xp.zeros_like(z), z) if is_unsigned(x.dtype) else z


@op("BitwiseAnd", since=18)
@pointwise
def bitwise_and(xp: Any, a: Any, b: Any) -> Any:
    """c = the bits that are set in a and in b."""
    return xp.bitwise_and(a, b)


@op("BitwiseOr", since=18)
@pointwise
def bitwise_or(xp: Any, a: Any, b: Any) -> Any:
    """c = the bits that are set in a or in b."""
    return xp.bitwise_or(a, b)


@op("BitwiseXor", since=18)
@pointwise
def bitwise_xor(xp: Any, a: Any, b: Any) -> Any:
    """c = the bits that are set in one of a and b."""
    return xp.bitwise_xor(a, b)


@op("BitwiseNot", since=18)
@pointwise
def bitwise_not(xp: Any, x: Any) -> Any:
    """y = the bits that are not set in x."""
    return xp.bitwise_invert(x)
