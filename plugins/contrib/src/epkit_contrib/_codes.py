"""Numbers and their codes: what quantised operators with one scale and zero point a tensor share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from epkit.kernels._pointwise import scalar
from epkit.kernels.quantize import quantized, shifted

BYTES = ("tensor(int8)", "tensor(uint8)")
SCALE = "tensor(float)"


def real(xp: Any, x: Any, scale: Any, zero: Any, name: str) -> Any:
    """(x - zero) scale as float32, for one scale and zero point."""
    zero = None if zero is None else scalar(xp, zero, f"{name}_zero_point")
    return shifted(xp, x, zero, xp.float32) * scalar(xp, scale, f"{name}_scale")


def coded(xp: Any, y: Any, scale: Any, zero: Any, dtype: Any, name: str) -> Any:
    """saturate(round(y / scale) + zero)."""
    zero = None if zero is None else scalar(xp, zero, f"{name}_zero_point")
    with np.errstate(all="ignore"):
        return quantized(xp, y / scalar(xp, scale, f"{name}_scale"), zero, dtype)


def by_table(xp: Any, x: Any, function: Callable[[Any], Any]) -> Any:
    """function(x) for bytes: computed once for each of the 256 codes."""
    codes = xp.astype(xp.arange(256), xp.uint8).view(x.dtype)
    return xp.take(function(codes), x.view(xp.uint8))
