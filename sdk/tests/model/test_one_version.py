"""Subgraph.to_model: nodes of several opset versions under one."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from epkit.backend import Subgraph
from epkit.errors import UnsupportedOpsetError


def part(*nodes: ir.Node, x: ir.Value, opset: int) -> Subgraph:
    return Subgraph("part", nodes, (x,), (nodes[-1].outputs[0],), {"": opset})


def tensor(name: str, *shape: int) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))


def node(
    op_type: str, x: ir.Value, y: ir.Value, version: int | None, **attributes: int | list[int]
) -> ir.Node:
    made = ir.convenience.convert_attributes(attributes)
    return ir.Node("", op_type, [x], made, outputs=[y], version=version, name=f"make_{y.name}")


@pytest.mark.parametrize("model_opset", [11, 12])
def test_older_nodes_are_converted(model_opset: int) -> None:
    """ReduceSum took its axes as an attribute, and Softmax over the flattened rest, before opset 13."""
    x, total, soft, y = (
        tensor("x", 2, 3, 4),
        tensor("total", 2, 1, 4),
        tensor("soft", 2, 1, 4),
        tensor("y", 2, 1, 4),
    )
    nodes = (
        node("ReduceSum", x, total, None, axes=[1], keepdims=1),
        node("Softmax", total, soft, 11, axis=1),
        node("Gelu", soft, y, 20),
    )
    model = part(*nodes, x=x, opset=model_opset).to_model()
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [20]
    given = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": given})
    sums = np.exp(given.sum(axis=1, keepdims=True).astype(np.float64))
    weights = sums / sums.sum(axis=(1, 2), keepdims=True)
    erf = np.vectorize(math.erf)
    np.testing.assert_allclose(found, weights * (1 + erf(weights / 2**0.5)) / 2, rtol=1e-5)


def test_the_newest_version_is_taken_wherever_its_node_stands() -> None:
    x, a, y = tensor("x", 2), tensor("a", 2), tensor("y", 2)
    model = part(node("Gelu", x, a, 20), node("Relu", a, y, 14), x=x, opset=17).to_model()
    assert model.opset_import[0].version == 20
    onnx.checker.check_model(model, full_check=True)


def test_what_cannot_be_converted_is_told() -> None:
    """Per-activation normalisation went away with opset 9."""
    x, a, y = tensor("x", 2, 2), tensor("a", 2, 2), tensor("y", 2, 2)
    attributes = ir.convenience.convert_attributes({"spatial": 0})
    old = ir.Node("", "BatchNormalization", [x] * 5, attributes, outputs=[a], version=7, name="make_a")
    with pytest.raises(UnsupportedOpsetError, match="make_a.*BatchNormalization of opset 7.*opset 20"):
        part(old, node("Gelu", a, y, 20), x=x, opset=7).to_model()
