"""Conversion between element types."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from ._dtypes import (
    SUB_BYTE_BITS,
    bits_of,
    dtype_of,
    is_float,
    is_integer,
    is_narrow_float,
    is_unsigned,
    name_of,
)
from .operator import op

limits_of_float: Any = ml_dtypes.finfo
limits_of_integer: Any = ml_dtypes.iinfo

SATURATING = frozenset({"float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"})
ROUND_MODES = ("up", "down", "nearest")


@op("Cast", since=6)
def cast(xp: Any, x: Any, *, to: int, saturate: int = 1, round_mode: str = "up") -> Any:
    """y = x in the type ``to``.

    ``saturate`` (opset 19) keeps float8 results finite; ``round_mode`` (opset 24) is for float8e8m0.
    """
    return converted(xp, x, dtype_of(xp, to, "to"), saturate=bool(saturate), round_mode=round_mode)


@op("Cast", since=1)
def cast_1(xp: Any, x: Any, *, to: str) -> Any:
    """y = x in the type named ``to``, such as "FLOAT"."""
    names = {"FLOAT": "float32", "DOUBLE": "float64"}
    allowed = (
        "FLOAT16",
        "BOOL",
        *(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)),
        *names,
    )
    if to.upper() not in allowed:
        raise ValueError(f"attribute to={to!r} is none of {', '.join(allowed)}")
    return converted(xp, x, getattr(xp, names.get(to.upper(), to.lower())))


@op("CastLike", since=15)
def cast_like(xp: Any, x: Any, target: Any, *, saturate: int = 1, round_mode: str = "up") -> Any:
    """y = x in the type of ``target``; the attributes are those of Cast."""
    return converted(xp, x, target.dtype, saturate=bool(saturate), round_mode=round_mode)


@op("BitCast", since=26)
def bit_cast(xp: Any, x: Any, *, to: int) -> Any:
    """y = the bits of x read as the type ``to``, which has as many bits."""
    dtype = dtype_of(xp, to, "to")
    if bits_of(dtype) != bits_of(x.dtype) or "object" in (name_of(dtype), name_of(x.dtype)):
        raise ValueError(
            f"attribute to={to} ({dtype}) does not have the bit width of the input type {x.dtype}"
        )
    if name_of(dtype) == "bool":
        return xp.asarray(
            x.view(xp.uint8) != 0
        )  # a bool of another value than 0 and 1 would be no valid array
    if name_of(x.dtype) == "bool":
        x = xp.astype(x, xp.uint8)
    return xp.asarray(x, order="C").view(dtype)


def converted(xp: Any, x: Any, dtype: Any, *, saturate: bool = True, round_mode: str = "up") -> Any:
    """``x`` in ``dtype`` by the rules of Cast (opset 28); a new array unless it has that type already."""
    x = xp.asarray(x)
    if x.dtype == dtype:
        return x
    target = name_of(dtype)
    with np.errstate(all="ignore"):
        if name_of(x.dtype) == "object":
            return from_text(xp, x, dtype, saturate=saturate, round_mode=round_mode)
        if target == "object":
            return to_text(x)
        x = plain(xp, x)
        if target == "bool":
            return xp.asarray(x != 0)
        if target == "float8_e8m0fnu":
            return to_power_of_two(xp, x, dtype, saturate, round_mode)
        if target in ("int2", "int4", "uint2", "uint4"):
            return to_few_bits(xp, x, dtype)
        if is_narrow_float(dtype) and target != "float16":  # ml_dtypes rounds to float32 first
            x = to_odd_float32(xp, x)
        if saturate and target in SATURATING:
            largest = float(limits_of_float(dtype).max)
            x = xp.minimum(xp.maximum(x, -largest), largest)
        return xp.astype(xp.asarray(x), dtype)


def plain(xp: Any, x: Any) -> Any:
    """Types that a namespace has no arithmetic for, in the smallest that it has."""
    if is_narrow_float(x.dtype):
        return xp.astype(x, xp.float32)
    return xp.astype(x, xp.int8) if name_of(x.dtype) in SUB_BYTE_BITS or x.dtype == xp.bool else x


def to_odd_float32(xp: Any, x: Any) -> Any:
    """``x`` as float32, inexact values to the odd neighbour, so that rounding again is right."""
    if x.dtype == xp.float32:
        return x
    x = xp.astype(x, xp.float64)
    y = xp.astype(x, xp.float32)
    back = xp.astype(y, xp.float64)
    odd = (y.view(xp.int32) & 1) == 1
    move = (back != x) & ~odd & xp.isfinite(back)
    towards = xp.astype(xp.where(back < x, xp.inf, -xp.inf), xp.float32)
    return xp.where(move, xp.nextafter(y, towards), y)


def to_power_of_two(xp: Any, x: Any, dtype: Any, saturate: bool, round_mode: str) -> Any:
    """float8e8m0: only an exponent, 2^-127 to 2^127, and NaN (so for negative numbers, which have none)."""
    if round_mode not in ROUND_MODES:
        raise ValueError(f"attribute round_mode={round_mode!r} is none of {', '.join(ROUND_MODES)}")
    x = xp.astype(x, xp.float64)
    mantissa, exponent = xp.frexp(x)  # mantissa in [1/2, 1)
    threshold = {"up": 0.5, "nearest": 0.75, "down": 1.0}[round_mode]
    upward = mantissa > threshold if round_mode == "up" else mantissa >= threshold
    exponent = exponent - 1 + xp.astype(xp.asarray(upward), exponent.dtype)
    exponent = xp.where(x == 0, -1000, xp.where(xp.isinf(x), 1000, exponent))
    bad = xp.isnan(x) | (x < 0)
    if not saturate:
        bad = bad | (exponent < -127) | (exponent > 127)
    bits = xp.where(bad, 255, xp.clip(exponent, -127, 127) + 127)
    return xp.astype(bits, xp.uint8).view(dtype)


def to_few_bits(xp: Any, x: Any, dtype: Any) -> Any:
    """Integers of 4 or 2 bits: the fraction is cut off, then the higher bits."""
    bits = bits_of(dtype)
    whole = xp.astype(xp.astype(x, xp.int64), xp.int8) & (2**bits - 1)
    if not is_unsigned(dtype):
        sign = 2 ** (bits - 1)
        whole = (whole ^ sign) - sign
    return xp.astype(xp.asarray(whole), dtype)


def to_text(x: Any) -> Any:
    """The shortest decimal text that reads back as the same number; whole numbers have no fraction."""
    if is_float(x.dtype):
        texts = [number_text(v) for v in (x.astype(np.float32) if x.dtype.kind == "V" else x).ravel()]
    else:
        texts = [str(int(v)) for v in x.ravel()]
    result = np.empty(len(texts), dtype=object)
    result[:] = texts
    return result.reshape(x.shape)


def number_text(value: Any) -> str:
    if not np.isfinite(value):
        return "NaN" if value != value else "INF" if value > 0 else "-INF"
    return str(value).removesuffix(".0")


def from_text(xp: Any, x: Any, dtype: Any, *, saturate: bool, round_mode: str) -> Any:
    """Decimal texts as numbers; for integers a fraction is cut off."""
    parse = parse_integer if is_integer(dtype) else parse_float
    values = [parse(text) for text in x.ravel()]
    if is_integer(dtype):
        range_ = limits_of_integer(dtype)
        if any(not range_.min <= v <= range_.max for v in values):
            raise ValueError(f"input holds a text that is outside the range of {dtype}")
        wide = np.array(values, dtype=np.uint64 if is_unsigned(dtype) else np.int64)
    else:
        wide = np.array(values, dtype=np.float64)
    return converted(xp, xp.asarray(wide.reshape(x.shape)), dtype, saturate=saturate, round_mode=round_mode)


def parse_float(text: Any) -> float:
    text = str(text)
    try:
        if "_" in text:
            raise ValueError
        return float(text)
    except ValueError:
        raise ValueError(f"input holds the text {text[:40]!r}, which is no number") from None


def parse_integer(text: Any) -> int:
    try:
        return int(str(text), 10) if "_" not in str(text) else int(parse_float(text))
    except ValueError:
        pass
    number = parse_float(text)
    if number - number != 0:
        raise ValueError(f"input holds the text {text!r}, which is no whole number")
    return int(number)
