"""Compares outputs with what was expected: element by element, sequences and maps item by item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Comparison:
    """How one output compares.

    Attributes:
        max_abs: the largest absolute difference.
        max_rel: the largest difference relative to a nonzero expected value.
        wrong, total: elements outside the tolerance, and all.
        problem: why the two cannot be compared element by element; "" if they could.
    """

    name: str
    max_abs: float = 0.0
    max_rel: float = 0.0
    wrong: int = 0
    total: int = 0
    problem: str = ""

    @property
    def passed(self) -> bool:
        """True if every element is within the tolerance."""
        return not self.problem and not self.wrong

    def __add__(self, other: Comparison) -> Comparison:
        return Comparison(
            self.name,
            max(self.max_abs, other.max_abs),
            max(self.max_rel, other.max_rel),
            self.wrong + other.wrong,
            self.total + other.total,
            self.problem or other.problem,
        )


def compare(name: str, actual: Any, expected: Any, rtol: float, atol: float) -> Comparison:
    """Is ``|actual - expected| <= atol + rtol * |expected|``? NaN equals NaN; text must be equal."""
    if isinstance(expected, list | tuple | dict):
        return _compare_items(name, actual, expected, rtol, atol)
    if expected is None or actual is None:
        return Comparison(name, problem="" if actual is expected else f"expected {expected}, got {actual}")
    found, wanted = np.asarray(actual), np.asarray(expected)
    if found.shape != wanted.shape:
        return Comparison(name, problem=f"expected shape {list(wanted.shape)}, got {list(found.shape)}")
    if found.dtype != wanted.dtype and not {found.dtype.kind, wanted.dtype.kind} <= set("OSUT"):
        return Comparison(name, problem=f"expected {wanted.dtype}, got {found.dtype}")
    if wanted.dtype.kind in "OSUTb":
        return Comparison(name, wrong=int(np.sum(found != wanted)), total=wanted.size)
    return _compare_numbers(name, found, wanted, rtol, atol)


def _compare_items(name: str, actual: Any, expected: Any, rtol: float, atol: float) -> Comparison:
    if isinstance(expected, dict):
        if not isinstance(actual, dict) or list(actual) != list(expected):
            return Comparison(
                name, problem=f"expected a map with the keys {list(expected)[:5]}, got {_kind(actual)}"
            )
        actual, expected = list(actual.values()), list(expected.values())
    if not isinstance(actual, list | tuple) or len(actual) != len(expected):
        return Comparison(name, problem=f"expected {_kind(expected)}, got {_kind(actual)}")
    pairs = zip(actual, expected, strict=True)
    return sum((compare(name, a, e, rtol, atol) for a, e in pairs), Comparison(name))


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return f"a map with the keys {list(value)[:5]}"
    return f"{len(value)} items" if isinstance(value, list | tuple) else f"a {type(value).__name__}"


def _compare_numbers(name: str, found: Any, wanted: Any, rtol: float, atol: float) -> Comparison:
    wide = np.complex128 if wanted.dtype.kind == "c" else np.float64
    whole = wanted.dtype.kind in "iu"
    same = found == wanted  # before widening, under which large integers become equal
    found, wanted = found.astype(wide), wanted.astype(wide)
    same |= np.isnan(found) & np.isnan(wanted)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        difference = np.where(same, 0.0, np.abs(found - wanted))
        difference = np.where(np.isnan(difference), np.inf, difference)
        difference = np.where(~same & whole, np.maximum(difference, 1.0), difference)
        size = np.abs(wanted)
        close = same | (np.isfinite(size) & (difference <= atol + rtol * size))
        relative = np.where(size > 0, difference / size, 0.0)
    relative = np.where(np.isnan(relative), np.inf, relative)
    wrong = int(wanted.size - np.count_nonzero(close))
    biggest = [float(values.max()) if values.size else 0.0 for values in (difference, relative)]
    return Comparison(name, biggest[0], biggest[1], wrong, wanted.size)
