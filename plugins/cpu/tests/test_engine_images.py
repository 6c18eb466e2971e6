"""Convolutions, pooling and resizing on the native engine, against onnxruntime, on every instruction set."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnxruntime
import pytest
from engine_session import BY_CHANCE, all_native, check, make, normal
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

import epkit
from epkit_cpu.native import isas

pytestmark = pytest.mark.skipif(not isas(), reason="the package was built without a compiler")


@BY_CHANCE
@given(
    channels=st.sampled_from([1, 3, 16, 20, 32]),
    filters=st.sampled_from([1, 8, 16, 40]),
    size=st.integers(5, 14),
    kernel=st.sampled_from([1, 2, 3, 5]),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    pads=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    depthwise=st.booleans(),
    threads=st.integers(1, 3),
)
def test_convolutions_in_a_row(
    isa: str,
    channels: int,
    filters: int,
    size: int,
    kernel: int,
    stride: int,
    dilation: int,
    pads: list[int],
    depthwise: bool,
    threads: int,
) -> None:
    """Two convolutions, a residual, pooling, and a reader in the planar layout between."""
    group, filters = (channels, channels) if depthwise else (1, filters)
    if size + min(pads[0] + pads[2], pads[1] + pads[3]) < (kernel - 1) * dilation + 1:
        return
    attributes: dict[str, Any] = {
        "group": group,
        "pads": pads,
        "strides": [stride] * 2,
        "dilations": [dilation] * 2,
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], **attributes),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["d"], pads=[1] * 4),
        helper.make_node("Add", ["d", "r"], ["s"]),
        helper.make_node("Clip", ["s", "", "high"], ["t"]),
        helper.make_node("Transpose", ["t"], ["turned"], perm=[0, 2, 3, 1]),
        helper.make_node("GlobalAveragePool", ["t"], ["mean"]),
        helper.make_node("Mul", ["t", "mean"], ["weighed"]),
    ]
    weights = {
        "w": normal(filters, channels // group, kernel, kernel) / kernel,
        "b": normal(filters),
        "v": normal(filters, filters, 3, 3) / (3 * np.sqrt(np.float32(filters))),
        "high": np.array(6, np.float32),
    }
    feeds = {"x": normal(2, channels, size, size)}
    check(nodes, feeds, ["turned", "mean", "weighed"], weights, atol=1e-3, threads=threads)


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("ceil", [0, 1])
def test_pooling(isa: str, kind: str, ceil: int) -> None:
    attributes: dict[str, Any] = {
        "kernel_shape": [3, 2],
        "strides": [2, 1],
        "pads": [1, 0, 1, 1],
        "ceil_mode": ceil,
    }
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node(kind, ["c"], ["y"], **attributes)]
    check(nodes, {"x": normal(1, 4, 9, 8)}, ["y"], {"w": normal(32, 4, 1, 1)})


def test_padding_goes_into_the_convolution(isa: str) -> None:
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["p"]),
        helper.make_node("Conv", ["p", "w"], ["y"], strides=[2, 2]),
    ]
    weights = {"pads": np.array([0, 0, 0, 1, 0, 0, 2, 1]), "w": normal(5, 3, 3, 3)}
    check(nodes, {"x": normal(1, 3, 8, 8)}, ["y"], weights)


@pytest.mark.parametrize("channels", [4, 32])
@pytest.mark.parametrize("size", [(50, 1), (1, 1), (9, 1, 1)])
def test_convolutions_over_images_of_one_column(isa: str, channels: int, size: tuple[int, ...]) -> None:
    kernel = [min(n, 3) for n in size]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], strides=[2, *[1] * (len(size) - 1)]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    weights = {"w": normal(24, channels, *kernel), "b": normal(24)}
    check(nodes, {"x": normal(2, channels, *size)}, ["y"], weights, atol=1e-4)


def test_a_convolution_after_a_value_of_unknown_rank(isa: str) -> None:
    """The rank of x is that of the weights: nothing else is possible."""
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["r"]),
        helper.make_node("Conv", ["r", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    feeds = {"x": normal(24, 7), "shape": np.array([1, 8, 21], np.int64)}
    model = make(nodes, feeds, ["y"], {"w": normal(5, 8, 3)})
    model.graph.input[1].type.tensor_type.shape.dim[0].dim_param = "rank"
    wanted = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)[0]
    with epkit.load(model, ["cpu"]) as session:
        assert all_native(session)
        np.testing.assert_allclose(session.run(None, feeds)["y"], wanted, 1e-4, 1e-5)


def test_tails_that_vanish_are_zero(isa: str) -> None:
    """Far from 0 activations and what is made of them hold no denormal numbers, which would cost a hundredfold."""
    x = np.linspace(-200, 0, 4001, dtype=np.float32).reshape(1, -1)
    wide = x.astype(np.float64)
    inner = np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)
    with np.errstate(all="ignore"):
        exact = {
            "none": 0.5 * wide * np.vectorize(math.erfc)(-wide / np.sqrt(2)),
            "tanh": wide / (1 + np.exp(-2 * inner)),
        }
    for kind, wanted in exact.items():
        node = helper.make_node("Gelu", ["x"], ["y"], approximate=kind)
        model = make([node], {"x": x}, ["y"], {})
        model.opset_import[0].version = 20
        with epkit.load(model, ["cpu"]) as session:
            found = session.run(None, {"x": x})["y"]
        assert not ((found != 0) & (np.abs(found) < np.finfo(np.float32).tiny)).any(), kind
        np.testing.assert_allclose(found, wanted, 2e-5, 1e-36)


def test_a_skip_that_repeats(isa: str) -> None:
    """Positions of a sequence are added to each item of a batch."""
    x, skip, scale = normal(3, 5, 32), normal(5, 32), normal(32)
    nodes = [
        helper.make_node(
            "SkipLayerNormalization",
            ["x", "s", "g"],
            ["y", "", "", "t"],
            domain="com.microsoft",
            epsilon=1e-5,
        )
    ]
    model = make(nodes, {"x": x}, ["y", "t"], {"s": skip, "g": scale})
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim[1:], (5, 32), strict=True):
        dim.dim_value = size
    total = x.astype(np.float64) + skip
    center = total - total.mean(-1, keepdims=True)
    with epkit.load(model, ["cpu"]) as session:
        assert all_native(session)
        found = session.run(None, {"x": x})
    np.testing.assert_allclose(found["t"], total, 1e-6, 1e-6)
    wanted = center / np.sqrt((center**2).mean(-1, keepdims=True) + 1e-5) * scale
    np.testing.assert_allclose(found["y"], wanted, 1e-4, 1e-5)


def test_transposed_convolution(isa: str) -> None:
    node = helper.make_node(
        "ConvTranspose", ["x", "w", "b"], ["y"], strides=[2, 2], pads=[1, 0, 1, 2], output_padding=[1, 0]
    )
    check([node], {"x": normal(2, 6, 5, 4)}, ["y"], {"w": normal(6, 7, 3, 3), "b": normal(7)})


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "align_corners", "asymmetric"])
@pytest.mark.parametrize("scale", [[1, 1, 2, 4], [1, 1, 0.7, 3]])
def test_resize(isa: str, mode: str, coordinates: str, scale: list[float]) -> None:
    if mode == "nearest" or coordinates == "align_corners":
        scale = [
            1,
            1,
            *(np.ceil(scale[2:])),
        ]  # with others rounding decides, and onnxruntime rounds in float32
    node = helper.make_node(
        "Resize", ["x", "", "scales"], ["y"], mode=mode, coordinate_transformation_mode=coordinates
    )
    check([node], {"x": normal(2, 3, 7, 10)}, ["y"], {"scales": np.array(scale, np.float32)})
