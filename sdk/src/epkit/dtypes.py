"""Element types: ONNX code, our name, the name in ONNX type strings, the NumPy dtype.

The names follow NumPy and ml_dtypes. Codes are those of ``onnx.TensorProto.DataType``.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

# (code, name, spelling inside "tensor(...)")
_TABLE = (
    (1, "float32", "float"),
    (2, "uint8", "uint8"),
    (3, "int8", "int8"),
    (4, "uint16", "uint16"),
    (5, "int16", "int16"),
    (6, "int32", "int32"),
    (7, "int64", "int64"),
    (8, "string", "string"),
    (9, "bool", "bool"),
    (10, "float16", "float16"),
    (11, "float64", "double"),
    (12, "uint32", "uint32"),
    (13, "uint64", "uint64"),
    (14, "complex64", "complex64"),
    (15, "complex128", "complex128"),
    (16, "bfloat16", "bfloat16"),
    (17, "float8_e4m3fn", "float8e4m3fn"),
    (18, "float8_e4m3fnuz", "float8e4m3fnuz"),
    (19, "float8_e5m2", "float8e5m2"),
    (20, "float8_e5m2fnuz", "float8e5m2fnuz"),
    (21, "uint4", "uint4"),
    (22, "int4", "int4"),
    (23, "float4_e2m1fn", "float4e2m1"),
    (24, "float8_e8m0fnu", "float8e8m0"),
    (25, "uint2", "uint2"),
    (26, "int2", "int2"),
    (27, "float6_e2m3fn", "float6e2m3"),
    (28, "float6_e3m2fn", "float6e3m2"),
)
NAME = {code: name for code, name, _ in _TABLE}
CODE = {name: code for code, name, _ in _TABLE}
SPELLING = {name: spelling for _, name, spelling in _TABLE}
BY_SPELLING = {spelling: name for _, name, spelling in _TABLE}

FLOATS = frozenset({"float32", "float16", "float64", "bfloat16"})
SIGNED = frozenset({"int8", "int16", "int32", "int64"})
UNSIGNED = frozenset({"uint8", "uint16", "uint32", "uint64"})
INTS = SIGNED | UNSIGNED
NUMBERS = FLOATS | INTS
BOOL = frozenset({"bool"})
STRINGS = frozenset({"string"})
ALL = frozenset(CODE)
NUMPY = NUMBERS - {"bfloat16"} | BOOL | {"complex64", "complex128"}
"""Types that NumPy has by itself; the others are those of ml_dtypes, which is imported for them."""


@cache
def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of an element type; strings are object arrays of ``str``.

    Raises:
        KeyError: if the name is not an element type.
    """
    import numpy

    if name not in CODE:
        raise KeyError(name)
    if name == "string":
        return numpy.dtype(object)
    if name in NUMPY:
        return numpy.dtype(name)
    import ml_dtypes

    found: np.dtype[Any] = numpy.dtype(getattr(ml_dtypes, name))
    return found


@cache
def name_of(dtype: np.dtype[Any]) -> str:
    """The element type of a NumPy dtype; fixed-width text counts as string.

    Raises:
        KeyError: if ONNX has no such element type.
    """
    if dtype.kind in "OSU" or dtype.kind == "T":
        return "string"
    if dtype.name not in CODE:
        raise KeyError(dtype.name)
    return dtype.name
