"""float16: stored in 16 bits, computed in 32, on devices that need not compute with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
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
