"""The precision that products, sums and norms are computed in: narrow floats go through float32, rounded once."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

quiet = np.errstate(all="ignore")
"""Decorator of operators in which NaN, infinity or overflow are legitimate results."""

NARROW = frozenset({"float16", "bfloat16"})

ELEMENT_TYPES: dict[int, Any] = {
    1: np.dtype(np.float32),
    2: np.dtype(np.uint8),
    3: np.dtype(np.int8),
    4: np.dtype(np.uint16),
    5: np.dtype(np.int16),
    6: np.dtype(np.int32),
    7: np.dtype(np.int64),
    10: np.dtype(np.float16),
    11: np.dtype(np.float64),
    12: np.dtype(np.uint32),
    13: np.dtype(np.uint64),
    16: np.dtype(ml_dtypes.bfloat16),
}
"""The numeric ONNX element types that attributes such as ``stash_type`` may name."""


def element_type(code: int, attribute: str) -> Any:
    """The dtype that an ONNX element type code stands for."""
    if code not in ELEMENT_TYPES:
        raise ValueError(f"attribute {attribute}={code} is not a numeric element type")
    return ELEMENT_TYPES[code]


def is_narrow(dtype: Any) -> bool:
    """Whether sums in this type need a wider accumulator."""
    return str(dtype) in NARROW


def wide(xp: Any, x: Any) -> Any:
    """A float16 or bfloat16 array as float32; anything else (None too) as it is."""
    return xp.astype(x, xp.float32) if x is not None and is_narrow(x.dtype) else x


def cast(xp: Any, x: Any, dtype: Any) -> Any:
    """``x`` in ``dtype``, without a copy where it has that already."""
    return x if x.dtype == dtype else xp.astype(x, dtype)


def is_float(xp: Any, dtype: Any) -> bool:
    """Whether the type is one of the real floating-point types, the narrow ones included."""
    return is_narrow(dtype) or dtype in (xp.float32, xp.float64)
