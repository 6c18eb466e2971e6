"""Model-local functions through a session, on mixed providers too; sparse weights where the standard has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from runtime_peer import by_onnxruntime

import epkit
from epkit.errors import InvalidModelError
from epkit.testing.awkward import every_other
from epkit.testing.device import FakeDevice, device_provider
from epkit.testing.oracle import assert_same
from epkit.testing.plugins import registry_of

X = np.array([[1, -2, 3], [4, 5, -6]], np.float32)
IMPORTS = 'opset_import: ["": 18, "f": 1]'
BODY = f'<domain: "f", {IMPORTS}>'

FUNCTIONS = {
    "nested": f"""
        g (float[N, 3] x, bool c) => (float[N, 3] y) {{ t = f.F(x)  y = f.G(t) }}
        {BODY} F (a) => (r) {{ t = Neg(a)  r = f.G(t) }}
        {BODY} G (a) => (r) {{ t = Tanh(a)  r = Add(t, a) }}""",
    "attributes_and_defaults": f"""
        g (float[N, 3] x, bool c) => (float[N, 3] y, float[N, 3] z) {{ y = f.F <alpha = 0.5> (x)  z = f.F(x) }}
        {BODY} F <alpha: float = 0.25> (a) => (r) {{ r = f.G <alpha: float = @alpha> (a) }}
        {BODY} G <alpha> (a) => (r) {{ r = LeakyRelu <alpha: float = @alpha> (a) }}""",
    "control_flow_inside": f"""
        g (float[N, 3] x, bool c) => (float[N, 3] y) {{ y = f.F(x, c) }}
        {BODY} F (a, c) => (r) {{
            h = Neg(a)
            r = If(c) <then_branch = t () => (u) {{ k = f.G(h)  u = Add(k, a) }},
                else_branch = e () => (u) {{ u = Identity(h) }}> }}
        {BODY} G (a) => (r) {{ r = Exp(a) }}""",
    "an_input_left_out": f"""
        g (float[N, 3] x, bool c) => (float[N, 3] y) <float top = {{2}}> {{ y = f.F(x, , top) }}
        {BODY} F (a, low, high) => (r) {{ r = Clip(a, low, high) }}""",
}  # fmt: skip


@pytest.mark.parametrize("level", ["none", "all"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_like_onnxruntime(name: str, level: str) -> None:
    made = onnx.parser.parse_model(f"<ir_version: 9, {IMPORTS}> {FUNCTIONS[name]}")
    device = FakeDevice()
    registry = registry_of(device_provider("toy", device, every_other(1)))
    for options in ({}, {"providers": ["toy"], "registry": registry}):
        with epkit.load(made, optimise=level, **options) as session:
            for c in (True, False):
                feeds: dict[str, Any] = {"x": X, "c": np.array(c)}
                assert_same(session.run(None, feeds), by_onnxruntime(made, feeds))
    device.assert_clean()


def overloaded() -> onnx.ModelProto:
    """F of three meanings, told apart by ``overload``, since IR version 10."""
    functions = []
    for overload, op in (("negative", "Neg"), ("exponential", "Exp"), ("", "Sqrt")):
        body = [helper.make_node(op, ["a"], ["r"])]
        functions.append(helper.make_function("f", "F", ["a"], ["r"], body, [helper.make_opsetid("", 18)]))
        functions[-1].overload = overload
    nodes = [
        helper.make_node("F", ["x"], ["p"], domain="f", overload="negative"),
        helper.make_node("F", ["p"], ["q"], domain="f", overload="exponential"),
        helper.make_node("F", ["q"], ["y"], domain="f"),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in "xy")
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
    graph = helper.make_graph(nodes, "g", [x], [y])
    return helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=10)


@pytest.mark.parametrize("level", ["none", "all"])
def test_overloaded_functions(level: str) -> None:
    with epkit.load(overloaded(), optimise=level) as session:
        found = session(x=X)
    assert_same(found["y"], np.sqrt(np.exp(-X)))
    assert_same(found, by_onnxruntime(overloaded(), {"x": X}))


def with_sparse_weight(flat: bool) -> onnx.ModelProto:
    values = helper.make_tensor("w", TensorProto.FLOAT, [2], [3, 4])
    places = [1, 5] if flat else [0, 1, 1, 2]
    indices = helper.make_tensor("w_indices", TensorProto.INT64, [2] if flat else [2, 2], places)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [x],
        [y],
        sparse_initializer=[helper.make_sparse_tensor(values, indices, [2, 3])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("level", ["none", "all"])
def test_sparse_initializers(flat: bool, level: str) -> None:
    with epkit.load(with_sparse_weight(flat), optimise=level) as session:
        assert_same(session(x=X)["y"], X + np.array([[0, 3, 0], [0, 0, 4]], np.float32))


def test_no_operator_of_the_standard_takes_a_sparse_tensor() -> None:
    """So initializers and Constant's ``sparse_value`` are where there are any; a sparse input is refused, clearly."""
    schemas = onnx.defs.get_all_schemas_with_history()
    assert not any("sparse" in kind for s in schemas for part in s.inputs for kind in part.types)
    sparse = [helper.make_sparse_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"], name="n")], "g", sparse[:1], sparse[1:]
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    with pytest.raises(InvalidModelError, match=r"sparse_tensor\(float\)") as caught:
        epkit.load(made)
    assert caught.value.where.node == "n"
