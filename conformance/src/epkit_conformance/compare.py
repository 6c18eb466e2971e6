"""Comparing an output with what it must be: structure, dtype, shape, values."""

from __future__ import annotations

from typing import Any

import numpy as np


def difference(got: Any, want: Any, rtol: float, atol: float, *, values: bool = True) -> str:
    """What differs, in a sentence; "" if nothing does. Not-a-number equals itself; integers must be equal."""
    if isinstance(want, list | tuple):
        return _sequence(got, want, rtol, atol, values)
    if want is None or isinstance(want, dict):
        return "" if _same(got, want) else f"is {got!r}, must be {want!r}"
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape:
        return f"has shape {list(got.shape)}, must have {list(want.shape)}"
    if want.dtype.kind in "OSUT":
        return (
            ""
            if list(map(_text, got.ravel())) == list(map(_text, want.ravel()))
            else f"is {got!r}, must be {want!r}"
        )
    if got.dtype != want.dtype:
        return f"has dtype {got.dtype}, must have {want.dtype}"
    return _numbers(got, want, rtol, atol) if values else ""


def _sequence(got: Any, want: Any, rtol: float, atol: float, values: bool) -> str:
    if not isinstance(got, list | tuple) or len(got) != len(want):
        return (
            f"is {type(got).__name__} of {len(got) if hasattr(got, '__len__') else '?'}, "
            f"must be a list of {len(want)}"
        )
    for index, (one, other) in enumerate(zip(got, want, strict=True)):
        problem = difference(one, other, rtol, atol, values=values)
        if problem:
            return f"item {index} {problem}"
    return ""


def _numbers(got: Any, want: Any, rtol: float, atol: float) -> str:
    if want.dtype.kind in "bui":
        wrong = got != want
    else:
        wide = np.complex128 if want.dtype.kind == "c" else np.float64
        # Narrow types hold few values: two of the nearest may differ by one unit in the last place.
        slack = max(rtol, 2**-6) if want.dtype.name == "bfloat16" else rtol
        wrong = ~np.isclose(got.astype(wide), want.astype(wide), rtol=slack, atol=atol, equal_nan=True)
    count = int(np.count_nonzero(wrong))
    if not count:
        return ""
    first = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    place = [int(index) for index in first]
    return (
        f"differs in {count} of {wrong.size} elements, first at {place}: {got[first]!r}, "
        f"must be {want[first]!r}"
    )


def _same(got: Any, want: Any) -> bool:
    return bool(got == want)


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
