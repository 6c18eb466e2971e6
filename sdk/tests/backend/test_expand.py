"""Custom operators that expand to functions: those with subgraphs, and those whose parts others run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

import epkit
from epkit.backend import CustomOperator
from epkit.errors import InvalidModelError
from epkit.testing.models import model
from epkit.testing.oracle import assert_same
from epkit.testing.plugins import registry_of

X = np.array([-1, 2], np.float32)
APPLY = model(
    "g (float[N] x, float[N] w) => (float[N] y) {"
    " y = toys.Apply <times: int = 3, body = b (float[N] a) => (float[N] c) { s = Sin(a) c = Add(s, w) }> (x) }",
    domains={"toys": 1},
)


def unused(xp: Any, x: Any) -> Any:
    raise AssertionError("a node with a subgraph has no kernel")


def apply_body(node: ir.Node, imports: Mapping[str, int]) -> ir.Function:
    """The body of the node, as often as it says, one after the other."""
    times = node.attributes["times"].as_int()
    if times < 1:
        raise ValueError(f"attribute times={times} should be positive")
    value = given = ir.Value(name="x")
    nodes: list[ir.Node] = []
    for _ in range(times):
        body = node.attributes["body"].as_graph().clone(allow_outer_scope_values=True)
        body.inputs[0].replace_all_uses_with(value)
        value = body.outputs[0]
        body.outputs.clear()
        inner = list(body)
        body.remove(inner)
        nodes += inner
    graph = ir.Graph([given], [value], nodes=nodes, opset_imports={"": imports[""]})
    return ir.Function("toys", "Apply", graph=graph, attributes=[])


OPERATOR = CustomOperator("toys", "Apply", unused, expand=apply_body)


@pytest.mark.parametrize("level", ["none", "all"])
def test_an_operator_with_a_subgraph_runs_as_standard_nodes(level: str) -> None:
    with epkit.load(APPLY, operators=[OPERATOR], optimise=level, registry=registry_of()) as session:
        wanted, w = X, np.array([0.5, 0.25], np.float32)
        for _ in range(3):
            wanted = np.sin(wanted) + w
        assert_same(session(x=X, w=w)["y"], wanted)
        assert [node.operator for node in session.placement.nodes] == ["Sin", "Add"] * 3


def test_what_cannot_be_expanded_names_the_node() -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(APPLY)
    node = broken.graph.node[0]
    node.name = "never"
    next(attribute for attribute in node.attribute if attribute.name == "times").i = 0
    with pytest.raises(InvalidModelError, match="times=0 should be positive") as caught:
        epkit.load(broken, operators=[OPERATOR], registry=registry_of())
    assert caught.value.where.node == "never"


def test_the_newest_version_that_the_model_may_mean_expands() -> None:
    def other(node: ir.Node, imports: Mapping[str, int]) -> ir.Function:
        raise ValueError("not this one")

    newer = CustomOperator("toys", "Apply", unused, 2, expand=other)
    with epkit.load(APPLY, operators=[newer, OPERATOR], registry=registry_of()) as session:
        assert session.placement.counts() == {"cpu": 6}


def test_a_provider_that_has_the_operator_runs_it_whole() -> None:
    """Only what nobody claims is expanded."""

    def negated(xp: Any, x: Any) -> Any:
        return -x

    def never(node: ir.Node, imports: Mapping[str, int]) -> ir.Function:
        raise ValueError("claimed whole")

    whole = model("g (float[N] x) => (float[N] y) { y = toys.Minus(x) }", domains={"toys": 1})
    operator = CustomOperator("toys", "Minus", negated, expand=never)
    with epkit.load(whole, operators=[operator], registry=registry_of()) as session:
        assert_same(session(x=X)["y"], -X)
