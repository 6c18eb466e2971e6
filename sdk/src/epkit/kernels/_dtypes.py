"""ONNX element type codes as dtypes of an array namespace."""

from __future__ import annotations

from functools import cache
from typing import Any

import ml_dtypes
import numpy as np

STRING = 8

NAMES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    STRING: "object_",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
    17: "float8_e4m3fn",
    18: "float8_e4m3fnuz",
    19: "float8_e5m2",
    20: "float8_e5m2fnuz",
    21: "uint4",
    22: "int4",
    23: "float4_e2m1fn",
    24: "float8_e8m0fnu",
    25: "uint2",
    26: "int2",
    27: "float6_e2m3fn",
    28: "float6_e3m2fn",
}
"""By ONNX code, the name that NumPy, ml_dtypes and other array libraries agree on."""

SUB_BYTE_BITS = {
    "int4": 4,
    "uint4": 4,
    "int2": 2,
    "uint2": 2,
    "float4_e2m1fn": 4,
    "float6_e2m3fn": 6,
    "float6_e3m2fn": 6,
}

NARROW_FLOATS = frozenset(
    name for name in NAMES.values() if name.startswith(("bfloat", "float4_", "float6_", "float8_"))
) | {"float16"}


def dtype_of(xp: Any, code: int, attribute: str = "dtype") -> Any:
    """The dtype for an ONNX element type code: the namespace's own, else that of ml_dtypes."""
    name = NAMES.get(code)
    if name is None:
        raise ValueError(f"attribute {attribute}={code} is not an ONNX element type")
    if hasattr(xp, name):
        own = getattr(xp, name)
        return np.dtype(own) if isinstance(own, type) else own
    return np.dtype(getattr(ml_dtypes, name, None) or getattr(np, name))


@cache
def name_of(dtype: Any) -> str:
    """The plain name of a dtype, such as "bfloat16", whatever library it is from."""
    return str(dtype).rpartition(".")[2]


def is_narrow_float(dtype: Any) -> bool:
    """Whether it is a floating-point type of fewer than 32 bits."""
    return name_of(dtype) in NARROW_FLOATS


def is_float(dtype: Any) -> bool:
    """Whether it is a real floating-point type of any width."""
    return name_of(dtype) in ("float32", "float64") or is_narrow_float(dtype)


def is_integer(dtype: Any) -> bool:
    """Whether it is a signed or unsigned integer type of any width."""
    return name_of(dtype).startswith(("int", "uint"))


def is_unsigned(dtype: Any) -> bool:
    """Whether it is an unsigned integer type of any width."""
    return name_of(dtype).startswith("uint")


def bits_of(dtype: Any) -> int:
    """The number of bits that the standard gives the type (an int4 occupies a byte in memory)."""
    return SUB_BYTE_BITS.get(name_of(dtype), 8 * int(dtype.itemsize))
