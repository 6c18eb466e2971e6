"""What constant folding makes of large constants."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from epkit.api import make_settings
from epkit.backend.registry import default
from epkit.optimize import fold_constants
from epkit.pipeline import stages


def folded(node: onnx.NodeProto, constants: dict[str, np.ndarray], kind: int = 1) -> bool:  # type: ignore[type-arg]
    """True if a node of constants is gone after the level basic."""
    tail = helper.make_node("Mul", ["c", "x"], ["y"])
    x, y = helper.make_tensor_value_info("x", kind, [1]), onnx.ValueInfoProto(name="y")
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph([node, tail], "g", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    settings = make_settings(["cpu"], "cpu", "basic", None, (), None, None)
    steps = stages(model, settings, default)
    optimised = next(value for name, value in steps if name == "optimise")
    steps.close()
    return all(found.op_type != node.op_type for found in optimised.model.graph)


def test_weights_may_grow_to_their_computing_type_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_constants, "LIMIT_BYTES", 1000)
    weights = np.ones((40, 100), np.int8)
    assert folded(helper.make_node("Cast", ["w"], ["c"], to=1), {"w": weights})
    assert not folded(helper.make_node("Cast", ["w"], ["c"], to=11), {"w": weights}, 11)
    shape = np.array([100, 100])
    assert not folded(
        helper.make_node("Expand", ["w", "s"], ["c"]), {"w": np.ones(1, np.float32), "s": shape}
    )
