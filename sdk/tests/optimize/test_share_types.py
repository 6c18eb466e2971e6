"""Nodes whose attribute is a type, which only Optional has, are shared like others."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

import epkit


def test_optionals_of_a_type() -> None:
    floats, ints = (
        helper.make_tensor_type_proto(code, [2]) for code in (TensorProto.FLOAT, TensorProto.INT64)
    )
    nodes = [
        helper.make_node("Optional", [], [name], type=kind)
        for name, kind in (("a", floats), ("b", floats), ("c", ints))
    ]
    nodes += [helper.make_node("OptionalHasElement", [name], [f"has_{name}"]) for name in "abc"]
    outputs = [helper.make_tensor_value_info(f"has_{name}", TensorProto.BOOL, []) for name in "abc"]
    graph = helper.make_graph(nodes, "g", [], outputs)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(made)
    for level in ("none", "basic", "all"):
        with epkit.load(made, optimise=level) as session:
            assert [value.tolist() for value in session().values()] == [False] * 3
