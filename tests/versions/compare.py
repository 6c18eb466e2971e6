"""Whether results are what was expected: structure, element type, shape, values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from epkit.dtypes import name_of

UNITS = {
    "float16": 2e-3,
    "bfloat16": 1.6e-2,
    "float8_e4m3fn": 0.13,
    "float8_e4m3fnuz": 0.13,
    "float8_e5m2": 0.26,
    "float8_e5m2fnuz": 0.26,
}
"""The relative distance of two neighbours or so, for the narrow floats."""


def assert_like(found: Any, expected: Any, rtol: float = 1e-4, path: str = "output") -> None:
    """Structure, type, shape and values agree.

    Raises:
        AssertionError: saying where not.
    """
    if expected is None:
        assert found is None, f"{path} is {found!r}, expected nothing"
    elif isinstance(expected, dict):
        assert list(found) == list(expected), f"{path} has the keys {list(found)}, expected {list(expected)}"
        for key, item in expected.items():
            assert_like(np.asarray(found[key]), np.asarray(item), rtol, f"{path}[{key!r}]")
    elif isinstance(expected, list | tuple):
        assert isinstance(found, Sequence), f"{path} is a {type(found).__name__}, expected a sequence"
        assert len(found) == len(expected), f"{path} has {len(found)} items, expected {len(expected)}"
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_like(one, other, rtol, f"{path}[{index}]")
    else:
        _assert_array(found, np.asarray(expected), rtol, path)


def _assert_array(found: Any, expected: Any, rtol: float, path: str) -> None:
    assert isinstance(found, np.ndarray), f"{path} is a {type(found).__name__}, expected an array"
    wanted = name_of(expected.dtype)
    assert name_of(found.dtype) == wanted, f"{path} is {found.dtype}, expected {wanted}"
    assert found.shape == expected.shape, f"{path} has the shape {found.shape}, expected {expected.shape}"
    if wanted == "string":
        assert all(isinstance(x, str) for x in found.flat), f"{path} holds bytes, expected str"
        assert [_text(x) for x in found.flat] == [_text(x) for x in expected.flat], path
    elif wanted in ("float32", "float64", "complex64", "complex128"):
        scale = np.abs(expected[np.isfinite(expected)]).max(initial=0)
        np.testing.assert_allclose(found, expected, rtol, float(scale * 1e-6), err_msg=path)
    elif wanted in UNITS:
        one, other = found.astype(np.float32), expected.astype(np.float32)
        scale = np.abs(other[np.isfinite(other)]).max(initial=0)
        np.testing.assert_allclose(one, other, UNITS[wanted], float(scale * UNITS[wanted] / 8), err_msg=path)
    else:
        np.testing.assert_array_equal(found, expected, err_msg=path)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
