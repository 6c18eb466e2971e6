"""Operators of the default domain outside the standard, against onnxruntime at the opsets where it has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from contrib_node import check, model_of, rand, run

import epkit
from epkit.errors import EpkitError

IMAGES = rand(2, 3, 5, 6)


@pytest.mark.parametrize("opset", [9, 12, 16, 17])
@pytest.mark.parametrize("bias", [None, rand(4)], ids=["plain", "bias"])
@pytest.mark.parametrize("axis", [-1, 1])
def test_layer_normalization_before_it_was_standard(opset: int, bias: Any, axis: int) -> None:
    scale = rand(4) if axis == -1 else rand(3, 4)
    shift = bias if bias is None or axis == -1 else rand(3, 4, seed=2)
    inputs = {"x": rand(2, 3, 4), "scale": scale, "bias": shift}
    check("LayerNormalization", inputs, 3, domain="", opset=opset, axis=axis, epsilon=1e-3)


def test_the_standards_own_version_stays_the_standards() -> None:
    """A kernel for the older meaning must not stand in front of those for 17 and later."""
    epkit.load(model_of("LayerNormalization", {"x": rand(2, 4), "s": rand(4)}, domain="", opset=12)).close()
    assert onnx.defs.get_schema("LayerNormalization", 20).since_version == 17
    wrong = {"x": rand(2, 3, 4, 5)}  # an attribute of version 1
    with pytest.raises(EpkitError, match="across_channels"):
        run("MeanVarianceNormalization", wrong, domain="", opset=13, across_channels=1)
    check("MeanVarianceNormalization", wrong, domain="", opset=13, axes=[0, 1])


@pytest.mark.parametrize("across", [0, 1])
@pytest.mark.parametrize("variance", [0, 1])
def test_mean_variance_normalization_1(across: int, variance: int) -> None:
    settings = {"across_channels": across, "normalize_variance": variance}
    check("MeanVarianceNormalization", {"x": IMAGES}, domain="", opset=7, **settings, atol=1e-4)


@pytest.mark.parametrize("attributes", [{}, {"scale": 2.5}], ids=str)
def test_scale(attributes: dict[str, float]) -> None:
    check("Scale", {"x": IMAGES}, domain="", opset=7, **attributes)


def test_image_scaler() -> None:
    check("ImageScaler", {"x": IMAGES}, domain="", opset=7, scale=2.0, bias=[1.0, -2.0, 0.5])


@pytest.mark.parametrize(
    "attributes", [{"border": [1, 2, 3, 0]}, {"border": [1, 2, 0, 0], "scale": [2, 3]}], ids=str
)
def test_crop(attributes: dict[str, list[int]]) -> None:
    check("Crop", {"x": IMAGES}, domain="", opset=7, **attributes)


@pytest.mark.parametrize("kind", [np.int32, np.int64])
@pytest.mark.parametrize("axes", [None, [1, 3], [-1, 0]], ids=str)
def test_dynamic_slice(kind: Any, axes: list[int] | None) -> None:
    count = 4 if axes is None else len(axes)
    inputs = {
        "data": IMAGES,
        "starts": np.array([0, 1, -3, 0][:count], kind),
        "ends": np.array([2, 2, 100, -1][:count], kind),
        "axes": None if axes is None else np.array(axes, kind),
    }
    check("DynamicSlice", inputs, domain="", opset=7)


@pytest.mark.parametrize(
    ("operator", "attributes", "message"),
    [
        ("ImageScaler", {"bias": [1.0, 2.0]}, "bias"),
        ("Crop", {"border": [1, 1, 1]}, "border"),
        ("Crop", {"border": [4, 0, 4, 0]}, "border"),
        ("Crop", {"border": [0, 0, 0, 0], "scale": [9, 9]}, "scale"),
    ],
)
def test_refusals(operator: str, attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(EpkitError, match=message):
        run(operator, {"x": IMAGES}, domain="", opset=7, **attributes)
