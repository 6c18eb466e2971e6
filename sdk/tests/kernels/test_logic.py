"""Comparisons and choice: strings, narrow types, old opsets."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from one_node import run


def test_equal_strings() -> None:
    a, b = np.array(["x", "y"], dtype=object), np.array(["x", "z"], dtype=object)
    assert run("Equal", a, b).tolist() == [True, False] and run("Equal", a, b).dtype == np.bool


def test_choose_strings_and_bfloat16() -> None:
    condition = np.array([True, False])
    assert run("Where", condition, np.array("a", dtype=object), np.array("b", dtype=object)).tolist() == [
        "a",
        "b",
    ]
    x = np.ones(2, ml_dtypes.bfloat16)
    assert run("Where", condition, x, x).dtype == x.dtype
    assert isinstance(run("Where", np.array(True), x[0, ...], x[1, ...]), np.ndarray)


@pytest.mark.parametrize("name, function", [("Greater", np.greater), ("Less", np.less)])
def test_old_comparison(name: str, function: np.ufunc) -> None:
    a, b = np.float32([[1, 2], [3, 4]]), np.float32([1, 4])
    np.testing.assert_array_equal(run(name, a, b, opset=1, broadcast=1, axis=0), function(a, b[:, None]))
    with pytest.raises(ValueError, match="same shape"):
        run(name, a, b, opset=1)


@pytest.mark.parametrize(
    "name, function", [("And", np.logical_and), ("Or", np.logical_or), ("Xor", np.logical_xor)]
)
def test_old_logic(name: str, function: np.ufunc) -> None:
    a, b = np.array([[True, False], [True, True]]), np.array([True, False])
    np.testing.assert_array_equal(run(name, a, b, opset=1, broadcast=1), function(a, b))
