"""How far two values are apart, measured against the largest number expected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

RTOL = 1e-3
"""Tolerated difference, relative to the largest expected magnitude of the tensor."""

NARROW_RTOL = 2e-2
"""The same for elements of 16 bits and fewer."""


@dataclass(frozen=True)
class Difference:
    """The largest difference of one tensor.

    Attributes:
        absolute: the largest absolute difference; infinite where only one of both is finite.
        relative: ``absolute`` divided by the largest expected magnitude.
        problem: why the two cannot be compared by number; "" if they can.
    """

    absolute: float = 0.0
    relative: float = 0.0
    problem: str = ""

    def within(self, rtol: float) -> bool:
        """True if the two agree."""
        return not self.problem and self.relative <= rtol

    def __str__(self) -> str:
        return self.problem or f"{self.absolute:.3g} ({self.relative:.2g} of the largest)"


def tolerance(expected: Any, rtol: float | None) -> float:
    """The tolerance for a value: the caller's, else one by its type."""
    if rtol is not None:
        return rtol
    dtype = getattr(expected, "dtype", None)
    narrow = dtype is not None and dtype.itemsize <= 2 and dtype.kind in "fV"
    return NARROW_RTOL if narrow else RTOL


def difference(found: Any, expected: Any) -> Difference:
    """Compare tensors, and sequences item by item."""
    if isinstance(expected, list | tuple):
        if not isinstance(found, list | tuple) or len(found) != len(expected):
            return Difference(problem="not the same number of items")
        parts = [difference(one, other) for one, other in zip(found, expected, strict=True)]
        return max(parts, key=lambda part: (bool(part.problem), part.relative), default=Difference())
    if expected is None or found is None:
        return Difference(problem="" if found is expected else "only one of both is there")
    if not hasattr(expected, "dtype"):
        return Difference(problem="" if found == expected else "the items differ")
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return Difference(
            problem=f"{found.dtype}{list(found.shape)} instead of {expected.dtype}{list(expected.shape)}"
        )
    if expected.dtype.kind in "OSUTb":
        wrong = int(np.count_nonzero(found != expected))
        return Difference(problem=f"{wrong} of {expected.size} elements differ" if wrong else "")
    return _numbers(found, expected)


def _numbers(found: Any, expected: Any) -> Difference:
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    one, other = found.astype(wide), expected.astype(wide)
    with np.errstate(all="ignore"):
        apart = np.abs(one - other)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    apart = np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))
    worst = float(apart.max(initial=0.0))
    largest = float(np.abs(other[np.isfinite(other)]).max(initial=0.0))
    return Difference(worst, worst / max(largest, 1e-6) if worst else 0.0)
