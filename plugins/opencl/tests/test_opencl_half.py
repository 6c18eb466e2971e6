"""float16: stored in 16 bits, computed in 32, on devices that need not compute with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

import epkit

F16 = onnx.TensorProto.FLOAT16


def half(*shape: int, seed: int = 0) -> Any:
    """Reproducible numbers around zero."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float16)


def run(nodes: list[onnx.NodeProto], feeds: dict[str, Any], weights: dict[str, Any], to: int = F16) -> Any:
    """The output y, every node on OpenCL, at the second run."""
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in feeds.items()
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        inputs,
        [helper.make_tensor_value_info("y", to, None)],
        [onnx.numpy_helper.from_array(x, name) for name, x in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    with epkit.load(model, ["opencl"], fallback="error", optimise="none") as session:
        session.run(None, feeds)
        return session.run(None, feeds)["y"]


def test_a_chain_rounds_after_every_node() -> None:
    x, y = np.array([1.0001, 2.00049, -3.1, 70000], np.float32), half(4)
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=F16),
        helper.make_node("Cast", ["h"], ["w"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Sub", ["w", "x"], ["d"]),
        helper.make_node("Mul", ["b", "b"], ["square"]),
        helper.make_node("Cast", ["square"], ["bw"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Add", ["d", "bw"], ["y"]),
    ]
    with np.errstate(over="ignore"):
        want = x.astype(np.float16).astype(np.float32) - x + (y * y).astype(np.float32)
    np.testing.assert_array_equal(run(nodes, {"x": x, "b": y}, {}, onnx.TensorProto.FLOAT), want)


CASES: list[tuple[str, dict[str, Any], dict[str, Any], Any]] = [
    ("MatMul", {"w": half(40, 35, seed=1)}, {}, lambda x, w: x @ w),
    ("Transpose", {}, {"perm": [1, 0]}, lambda x: x.T),
    ("ReduceMean", {}, {"keepdims": 0}, lambda x: x.mean()),
    ("Softmax", {}, {}, lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
    ("Exp", {}, {}, np.exp),
    ("Gather", {"i": np.array([2, 0, 2])}, {"axis": 1}, lambda x, i: x[:, i.astype(int)]),
]


@pytest.mark.parametrize(("name", "weights", "attributes", "meaning"), CASES)
def test_operators_against_numpy(
    name: str, weights: dict[str, Any], attributes: dict[str, Any], meaning: Any
) -> None:
    x = half(7, 40)
    found = run([helper.make_node(name, ["x", *weights], ["y"], **attributes)], {"x": x}, weights)
    want = meaning(x.astype(np.float64), *(w.astype(np.float64) for w in weights.values()))
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, want, rtol=2**-10, atol=1e-4)  # one rounding to 11 bits


X = half(2, 4, 9, 8)
POSITIVE = np.abs(half(4, seed=3)) + np.float16(0.5)
FAMILIES: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("Conv", [X, half(6, 4, 3, 3, seed=1), half(6, seed=2)], {"pads": [1] * 4}),
    ("Conv", [X, half(4, 1, 3, 3, seed=1)], {"group": 4}),
    ("ConvTranspose", [X, half(4, 3, 2, 2, seed=1)], {"strides": [2, 2]}),
    ("Gemm", [half(5, 7), half(7, 6, seed=1), half(6, seed=2)], {"alpha": 0.5}),
    ("MaxPool", [X], {"kernel_shape": [3, 2]}),
    ("AveragePool", [X], {"kernel_shape": [3, 3], "pads": [1] * 4}),
    ("LayerNormalization", [half(3, 18), half(18, seed=1), half(18, seed=2)], {}),
    ("BatchNormalization", [X, half(4, seed=1), half(4, seed=2), half(4), POSITIVE], {}),
    ("InstanceNormalization", [X, half(4, seed=1), half(4, seed=2)], {}),
    ("LSTM", [half(3, 2, 5), half(1, 24, 5, seed=1), half(1, 24, 6, seed=2)], {"hidden_size": 6}),
    ("Resize", [X, None, np.array([1, 1, 2, 1.5], np.float32)], {"mode": "linear"}),
    ("TopK", [half(3, 20), np.array([4])], {}),
    ("ArgMax", [half(3, 20)], {"axis": 1}),
    ("CumSum", [half(3, 9), np.array(1)], {}),
    ("ScatterElements", [half(3, 5), np.array([[0, 2, 1]]), half(1, 3, seed=1)], {}),
    ("Where", [half(3, 1) > 0, half(3, 5), half(1, 5, seed=1)], {}),
    ("Concat", [half(3, 2), half(3, 4, seed=1)], {"axis": 1}),
    ("Pad", [half(3, 4), np.array([1, 0, 0, 2]), np.array(2.5, np.float16)], {}),
    ("Clip", [half(30), np.array(-0.5, np.float16), np.array(0.5, np.float16)], {}),
    ("Less", [half(30), half(30, seed=1)], {}),
]


def model_of(name: str, given: list[Any], attributes: dict[str, Any]) -> onnx.ModelProto:
    """One node; its first input is fed, the others are weights."""
    names = ["" if value is None else f"i{index}" for index, value in enumerate(given)]
    x = helper.make_tensor_value_info("i0", helper.np_dtype_to_tensor_dtype(given[0].dtype), given[0].shape)
    weights = [
        onnx.numpy_helper.from_array(value, name)
        for name, value in zip(names[1:], given[1:], strict=True)
        if value is not None
    ]
    outputs = ["y", "places"] if name == "TopK" else ["y"]
    node = helper.make_node(name, names, outputs, **attributes)
    graph = helper.make_graph([node], "g", [x], [onnx.ValueInfoProto(name="y")], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


@pytest.mark.parametrize(("name", "given", "attributes"), FAMILIES)
def test_every_family_is_that_of_float32_rounded_once(
    name: str, given: list[Any], attributes: dict[str, Any]
) -> None:
    """What onnxruntime computes in float32 from the same numbers."""
    with epkit.load(
        model_of(name, given, attributes), ["opencl"], fallback="error", optimise="none"
    ) as session:
        found = session.run(None, {"i0": given[0]})["y"]
    single = [
        value.astype(np.float32) if value is not None and value.dtype == np.float16 else value
        for value in given
    ]
    peer = onnxruntime.InferenceSession(
        model_of(name, single, attributes).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (want,) = peer.run(["y"], {"i0": single[0]})
    assert found.dtype == (np.float16 if want.dtype == np.float32 else want.dtype)
    np.testing.assert_allclose(found, want.astype(found.dtype), rtol=2**-10, atol=2e-6)


def test_softmax_rounds_the_steps_that_the_definition_rounds() -> None:
    """As ONNX publishes Attention of float16: exponentials and sum are float16; a sum beyond its range is not."""
    x = half(6, 50)
    e = np.exp(x.astype(np.float32) - x.max(-1, keepdims=True).astype(np.float32)).astype(np.float16)
    want = (e / e.sum(-1, keepdims=True, dtype=np.float32).astype(np.float16)).astype(np.float16)
    found = run([helper.make_node("Softmax", ["x"], ["y"])], {"x": x}, {})
    assert np.mean(found == want) > 0.99  # exponentials may differ by a unit before they are rounded
    long = np.zeros((1, 70000), np.float16)
    np.testing.assert_allclose(
        run([helper.make_node("Softmax", ["x"], ["y"])], {"x": long}, {}), 1 / 70000, rtol=0.01
    )
