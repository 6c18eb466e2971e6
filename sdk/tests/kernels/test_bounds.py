"""What a shape, a count or an attribute asks for is refused above a limit, before any memory is taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from one_node import run

from epkit import knobs
from epkit.kernels._bounds import largest

MANY = 1 << 22
X = np.ones((2, 3), np.float32)

ASKS: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "shape": ("ConstantOfShape", [np.array([MANY, 2])], {}),
    "expand": ("Expand", [X, np.array([MANY, 2, 3])], {}),
    "index": (
        "MaxUnpool",
        [X[None, None], np.arange(6).reshape(1, 1, 2, 3), np.array([1, 1, MANY, 3])],
        {"kernel_shape": [1, 1]},
    ),
    "count": ("Tile", [X, np.array([MANY, 1])], {}),
    "range": ("Range", [np.array(0), np.array(MANY), np.array(1)], {}),
    "depth": ("OneHot", [np.array([0]), np.array(MANY), np.array([0, 1])], {}),
    "pads": ("Pad", [X, np.array([MANY, 0, 0, 0])], {}),
    "window": ("HannWindow", [np.array(MANY)], {}),
    "scales": ("Resize", [X, None, np.array([MANY, 1], np.float32)], {}),
    "random": ("RandomNormal", [], {"shape": [MANY, 2]}),
    "padding": ("MaxPool", [X[None, None]], {"kernel_shape": [MANY, 1], "pads": [MANY - 1, 0, MANY - 1, 0]}),
    "stride": ("ConvTranspose", [X[None, None], X[None, None]], {"strides": [MANY, 1]}),
}


@pytest.mark.parametrize("name", ASKS)
def test_the_limit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op, inputs, attributes = ASKS[name]
    monkeypatch.setenv(knobs.LARGEST_RESULT.name, str(1 << 22))
    with pytest.raises(ValueError, match=r"MiB, would exceed 4\.0 MiB \(set EPKIT_LARGEST_RESULT"):
        run(op, *inputs, **attributes)


def test_below_the_limit_the_same_operators_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(knobs.LARGEST_RESULT.name, str(1 << 28))
    assert run("Tile", X, np.array([MANY, 1])).shape == (2 * MANY, 3)


def test_without_a_limit_it_is_part_of_the_memory() -> None:
    assert 1 << 28 < largest() < 1 << 46
    with pytest.raises(ValueError, match="would exceed .* GiB"):
        run("Expand", X, np.array([1 << 40, 2, 3]))
