"""The precision of products, sums and norms: narrow floats go through float32 and are rounded once."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import NAME, NUMBERS, numpy_dtype

quiet = np.errstate(all="ignore")
"""Decorator of operators in which NaN, infinity or overflow are legitimate results."""

NARROW = frozenset({"float16", "bfloat16"})


def element_type(code: int, attribute: str) -> Any:
    """The numeric dtype that an attribute such as ``stash_type`` names by its ONNX code."""
    name = NAME.get(code, "")
    if name not in NUMBERS:
        raise ValueError(f"attribute {attribute}={code} is not a numeric element type")
    return numpy_dtype(name)


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


def mean(xp: Any, x: Any, axis: Any) -> Any:
    """The mean over some axes, kept with size 1; NaN, without NumPy's warning, where they are empty."""
    if 0 not in x.shape:
        return xp.mean(x, axis=axis, keepdims=True)
    total = xp.sum(x, axis=axis, keepdims=True)
    return xp.full_like(total, float("nan"))
