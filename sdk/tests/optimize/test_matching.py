"""Matching, and what the optimiser does not do twice."""

from __future__ import annotations

import onnx
import onnx.parser
import onnx_ir as ir
import pytest

import epkit.optimize.optimise as optimiser
from epkit.model.check import check
from epkit.model.read import read
from epkit.optimize.pattern import Match, Pattern
from epkit.testing.models import model


def graph_of(text: str) -> ir.Model:
    proto = onnx.parser.parse_model(text) if text.lstrip().startswith("<") else model(text)
    return check(read(proto)).model


def match(formula: str, text: str) -> Match | str | None:
    graph = graph_of(text).graph
    return Pattern(("x",), ("y",), formula).match(graph[-1])


def test_an_alternative_that_fails_leaves_nothing_behind() -> None:
    found = match(
        "y = Any((x * scalar(a)) + (x * scalar(b)), (x * scalar(c)) + u)",
        "g (float[2] p, float[2] q) => (float[2] y) <float k = {2}, float l = {3}>"
        "{ s = Mul(p, k) t = Mul(q, l) y = Add(s, t) }",
    )
    assert isinstance(found, Match)
    assert found.attributes == {"c": 2.0}
    assert {name: value.name for name, value in found.names.items() if name in "xabu"} == {"x": "p", "u": "t"}
    assert [node.op_type for node in found.nodes.values()] == ["Add", "Mul"]


@pytest.mark.parametrize(
    ("body", "fits"),
    [
        ("s = Sigmoid(x) y = Mul(x, s)", True),
        ("s = Sigmoid(x) y = Mul(s, x)", True),
        ("s = Sigmoid(x) y = Mul(z, s)", False),
        ("s = Tanh(x) y = Mul(x, s)", False),
        ("n = Neg(x) s = Sigmoid(n) y = Mul(n, s)", True),
    ],
)
def test_the_same_value_in_either_order(body: str, fits: bool) -> None:
    found = match("y = x * Sigmoid(x)", f"g (float[2] x, float[2] z) => (float[2] y) {{ {body} }}")
    assert isinstance(found, Match) is fits


def test_inference_is_not_asked_again_where_it_had_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The result of If has no rank, whatever is fused elsewhere."""
    asked: list[ir.Model] = []
    monkeypatch.setattr(optimiser, "infer", asked.append)
    graph = graph_of(
        """g (float[2, 2] x, bool flag) => (y, float[2, 2] z)
        { y = If (flag) < then_branch = t () => (float[2, 2] a) { a = Neg (x) },
                          else_branch = e () => (float b) { b = ReduceSum <keepdims = 0> (x) } >
          s = Sigmoid (x)  z = Mul (x, s) }"""
    )
    (choice,) = (node for node in graph.graph if node.op_type == "If")
    assert choice.outputs[0].shape is None
    done = optimiser.optimise(graph, "extended")
    assert "swish" in [applied.rule for applied in done.applied]
    assert not asked


def test_a_pass_whose_operators_are_in_a_function_only_still_runs() -> None:
    graph = graph_of(
        """<ir_version: 10, opset_import: ["": 21, "own": 1, "ai.onnx.preview.training": 1]>
        g (float[2] x) => (float[2] y) { y = own.slope (x) }
        <opset_import: ["": 21, "ai.onnx.preview.training": 1], domain: "own">
        slope (a) => (b) { c = Mul (a, a) b = ai.onnx.preview.training.Gradient <xs = ["a"], y = "c"> (a) }"""
    )
    done = optimiser.optimise(graph, "basic")
    assert not any(node.op_type == "Gradient" for node in done.model.graph)


@pytest.mark.parametrize("sum_of", ["a, b", "b, a"])
@pytest.mark.parametrize("product_of", ["b, c", "c, b"])
@pytest.mark.parametrize("last", ["s, m", "m, s"])
def test_orders_are_tried_again_where_a_later_part_does_not_fit(
    sum_of: str, product_of: str, last: str
) -> None:
    """Only the second order of the sum may have the value that the product reads too."""
    found = match(
        "y = Max(u + v, v * w)",
        "g (float[2] a, float[2] b, float[2] c) => (float[2] y)"
        f"{{ s = Add({sum_of}) m = Mul({product_of}) y = Max({last}) }}",
    )
    assert isinstance(found, Match)
    assert {name: found[name].name for name in "uvw"} == {"u": "a", "v": "b", "w": "c"}


def test_names_of_a_way_that_was_given_up_are_forgotten() -> None:
    found = match(
        "y = Any(Tanh(u + scalar(k)) * x, Tanh(x + u) * z)",
        "g (float[2] a, float[2] b, float[2] c) => (float[2] y){ s = Add(a, b) t = Tanh(s) y = Mul(c, t) }",
    )
    assert isinstance(found, Match)
    assert {name: value.name for name, value in found.names.items() if name in "xuz"} == {
        "x": "a",
        "u": "b",
        "z": "c",
    }
    assert found.attributes == {}
