"""Convolution and pooling in both layouts: what the library is asked for, and what is done where it says no."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
from cuda_standin import StandIn
from onnx import helper, numpy_helper
from test_cuda_attention import model_of, ours, theirs
from test_cuda_kernels import data

import epkit

ACTIVATIONS: list[tuple[str, list[float], float]] = [
    ("", [], 0.0), ("Relu", [], math.inf), ("Clip", [0.0, 6.0], 6.0),
]  # fmt: skip


@pytest.mark.parametrize(("activation", "parameters", "relu"), ACTIVATIONS)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16"])
def test_what_follows_a_convolution_is_part_of_it(
    gpu: StandIn, activation: str, parameters: list[float], relu: float, residual: bool, precision: str
) -> None:
    feeds = {"x": 4 * data(2, 4, 6, 7), "w": data(6, 2, 3, 3, seed=1), "b": data(6, seed=2)}
    if residual:
        feeds["z"] = data(2, 6, 6, 7, seed=3)
    attributes: dict[str, Any] = {"pads": [1, 1, 1, 1], "group": 2, "kernel_shape": [3, 3]}
    if activation:
        attributes["activation"] = activation
    if parameters:
        attributes["activation_params"] = parameters
    node = helper.make_node("FusedConv", list(feeds), ["y"], domain="com.microsoft", **attributes)
    model = model_of(node, feeds, {"y": 4}, 21)
    found = ours(model, feeds, precision=precision)["y"]
    plain = helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1], group=2)
    want = theirs(model_of(plain, {n: feeds[n] for n in "xwb"}, {"y": 4}, 21), {n: feeds[n] for n in "xwb"})[
        0
    ]
    want = want + feeds.get("z", 0)
    want = np.clip(want, 0, relu) if relu else want
    tolerance = 2e-2 if precision == "fp16" else 1e-4
    np.testing.assert_allclose(found, want, rtol=tolerance, atol=tolerance)
    inside = [found[1:] for found in gpu.convolutions]
    assert inside == ([(False, False, 0.0)] if precision == "fp32" else [(True, residual, relu)])
    assert gpu.launches == (precision == "fp32")


def network() -> onnx.ModelProto:
    """Convolutions, a residual and pooling, as pictures are classified."""
    weights = {"w1": data(8, 3, 3, 3), "w2": data(8, 8, 1, 1, seed=1), "b": data(8, seed=2)}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["m"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["m", "w2"], ["d"]),
        helper.make_node("Add", ["d", "m"], ["a"]),
        helper.make_node("AveragePool", ["a"], ["p"], kernel_shape=[2, 3], strides=[2, 1], pads=[0, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["p"], ["g"]),
        helper.make_node("Flatten", ["g"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, [2, 3, 12, 10])],
        [helper.make_tensor_value_info("y", 1, [2, 8])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("optimise", ["basic", "extended", "all"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_network_in_either_layout(gpu: StandIn, optimise: str, precision: str) -> None:
    feeds = {"x": data(2, 3, 12, 10, seed=5)}
    with epkit.load(
        network(), [("cuda", {"precision": precision})], fallback="error", optimise=optimise
    ) as session:
        found = session.run(None, feeds)["y"]
    tolerance = 1e-4 if precision == "fp32" else 5e-2
    np.testing.assert_allclose(found, theirs(network(), feeds)[0], rtol=tolerance, atol=tolerance)
    last = [steps[1] < steps[3] for steps, *_ in gpu.convolutions]
    assert last == [optimise == "all"] * 2
    assert gpu.implicit_reads == 0


POOLS: list[tuple[str, Any, dict[str, Any]]] = [
    ("MaxPool", (2, 3, 11), {"kernel_shape": [3], "strides": [2], "ceil_mode": 1}),
    ("MaxPool", (2, 3, 6, 7), {"kernel_shape": [3, 2], "auto_pad": "SAME_LOWER"}),
    ("MaxPool", (2, 3, 6, 7), {"kernel_shape": [3, 2], "dilations": [2, 1], "pads": [2, 0, 1, 1]}),
    ("AveragePool", (2, 3, 6, 7), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    (
        "AveragePool",
        (1, 2, 5, 4, 6),
        {"kernel_shape": [2, 2, 3], "strides": [1, 2, 2], "pads": [1, 0, 1, 0, 1, 1]},
    ),
    ("GlobalMaxPool", (2, 3, 6, 7), {}),
]


@pytest.mark.parametrize(("name", "shape", "attributes"), POOLS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_pooling(gpu: StandIn, name: str, shape: Any, attributes: dict[str, Any], dtype: Any) -> None:
    feeds = {"x": data(*shape)}
    want = theirs(
        model_of(helper.make_node(name, ["x"], ["y"], **attributes), feeds, {"y": len(shape)}, 19), feeds
    )[0]
    feeds = {"x": feeds["x"].astype(dtype)}
    found = ours(
        model_of(helper.make_node(name, ["x"], ["y"], **attributes), feeds, {"y": len(shape)}, 19), feeds
    )["y"]
    tolerance = 1e-5 if dtype == np.float32 else 3e-3
    np.testing.assert_allclose(found, want, rtol=tolerance, atol=tolerance)
    assert gpu.launches == 1
