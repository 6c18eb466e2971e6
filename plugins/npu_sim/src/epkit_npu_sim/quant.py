"""Quantised tensors, and real factors as the integers that the vector unit multiplies by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import isa

if TYPE_CHECKING:
    import onnx_ir as ir

Array = np.ndarray[Any, Any]
MAX_SHIFT = 62


class Unsupported(Exception):
    """A node is not for this machine; ``code`` is a refusal code."""

    def __init__(self, code: str, reason: str, constraint: str = "", actual: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.constraint = constraint
        self.actual = actual


@dataclass(frozen=True, eq=False)
class QTensor:
    """Integers that stand for real numbers: real = (value - zero) scale.

    Attributes:
        value: the integer tensor in the graph.
        shape, dtype: of it.
        scale, zero: float32 and int64; scalars, or vectors along ``axis``.
        constant: its numbers, if they are known at compile time.
    """

    value: ir.Value
    shape: tuple[int, ...]
    dtype: str
    scale: Array
    zero: Array
    axis: int = 0
    constant: Array | None = None

    @property
    def kind(self) -> int:
        """The element type's code in the instruction set."""
        return isa.TYPE_NAMES.index(self.dtype)

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return np.dtype(self.dtype).itemsize

    @property
    def s(self) -> np.float32:
        """The scale of the whole tensor."""
        return np.float32(self.scale.reshape(()))

    @property
    def z(self) -> int:
        """The zero point of the whole tensor."""
        return int(self.zero.reshape(()))

    def same_numbers(self, other: QTensor) -> bool:
        """True if equal integers mean equal numbers in both."""
        return self.dtype == other.dtype and self.z == other.z and self.s == other.s

    def limits(self) -> tuple[int, int]:
        """The least and the greatest integer."""
        info = np.iinfo(self.dtype)
        return int(info.min), int(info.max)


def multiplier(factor: float) -> tuple[int, int]:
    """A positive factor as (mult, shift), mult below 2^24: exact for every float32.

    Raises:
        Unsupported: if it is not a number that the machine can multiply by.
    """
    if not (math.isfinite(factor) and factor > 0):
        raise Unsupported("attribute", f"a scale of {factor} is not usable", "scale > 0", str(factor))
    fraction, exponent = math.frexp(factor)
    mult, shift = round(fraction * (1 << 24)), 24 - exponent
    while mult % 2 == 0 and shift > 0:  # a short multiplier leaves more room for the sum
        mult, shift = mult // 2, shift - 1
    if shift > MAX_SHIFT:
        mult, shift = mult >> min(shift - MAX_SHIFT, 32), MAX_SHIFT
    if shift < 0 or mult >= 1 << 31:
        raise Unsupported("attribute", f"the ratio of scales is {factor:g}, above 2^24", "ratio < 2^24")
    return mult, shift


def pair(first: float, second: float) -> tuple[int, int, int]:
    """Two positive factors over one shift, rounded to at most 30 bits: (mult, mult, shift)."""
    largest = max(first, second)
    if not (math.isfinite(largest) and first > 0 and second > 0):
        raise Unsupported(
            "attribute", f"scales in the ratios {first} and {second} are not usable", "scale > 0"
        )
    shift = min(MAX_SHIFT, 30 - math.frexp(largest)[1])
    if shift < 0:
        raise Unsupported("attribute", f"the ratio of scales is {largest:g}, above 2^30", "ratio < 2^30")
    return round(math.ldexp(first, shift)), round(math.ldexp(second, shift)), shift


def clamp_of(q: QTensor, low: float = -math.inf, high: float = math.inf) -> tuple[int, int]:
    """The range of real numbers [low, high] in the integers of a tensor."""
    least, greatest = q.limits()
    if low > -math.inf:
        least = max(least, quantise(np.float32(low), q))
    if high < math.inf:
        greatest = min(greatest, quantise(np.float32(high), q))
    return least, greatest


def quantise(real: Any, q: QTensor) -> Any:
    """QuantizeLinear with the scale of the whole tensor, in float32 as the standard says."""
    least, greatest = q.limits()
    with np.errstate(all="ignore"):
        ratio = np.asarray(real, np.float32) / q.s
        values = np.clip(np.rint(ratio) + np.float32(q.z), least, greatest)
    values = np.where(np.isnan(values), 0, values).astype(np.int64)
    return int(values) if values.ndim == 0 else values


def dequantise(values: Any, q: QTensor) -> Array:
    """DequantizeLinear with the scale of the whole tensor."""
    return (np.asarray(values).astype(np.float32) - np.float32(q.z)) * q.s
