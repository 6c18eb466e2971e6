"""The passes of the basic level that are no rules: on random graphs the values stay; and what they have to leave."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import epkit
from epkit.model.check import check
from epkit.model.read import read
from epkit.optimize.levels import CLEAN
from epkit.optimize.optimise import count_nodes, optimise, pass_name
from epkit.testing.models import model, random_feeds, random_model
from epkit.testing.oracle import assert_same, expected


def operators(text: str | onnx.ModelProto, opset: int = 18) -> list[str]:
    proto = model(text, opset=opset) if isinstance(text, str) else text
    return [node.op_type for node in optimise(check(read(proto)).model, "basic").model.graph]


def redundant(seed: int) -> onnx.ModelProto:
    """A random model in which every node is there twice, each reader takes one or the other, and some are idle."""
    rng = random.Random(seed)
    proto = random_model(rng, 10)
    nodes, other = list(proto.graph.node), {name: [name] for node in proto.graph.node for name in node.output}
    del proto.graph.node[:]
    for node in nodes:
        for name, names in [(n, other[n]) for n in node.input if n in other and not node.attribute]:
            place = list(node.input).index(name)
            node.input[place] = rng.choice(names)
        proto.graph.node.append(node)
        if len(node.output) != 1 or any(a.HasField("g") for a in node.attribute):
            continue
        twin = proto.graph.node.add()
        twin.CopyFrom(node)
        twin.name, twin.output[0] = f"{node.name}_twin", f"{node.output[0]}_twin"
        wrapped = rng.choice(["Identity", ""])
        if wrapped:
            idle = proto.graph.node.add(op_type=wrapped, name=f"{node.name}_idle")
            idle.input.append(twin.output[0])
            idle.output.append(f"{node.output[0]}_idle")
        other[node.output[0]].append(f"{node.output[0]}_{'idle' if wrapped else 'twin'}")
    return proto


@settings(max_examples=10, deadline=None, database=None, phases=[Phase.generate])
@given(seed=st.integers(0, 10**6))
def test_what_is_there_twice_or_idle_goes_and_the_values_stay(seed: int) -> None:
    proto, feeds = redundant(seed), random_feeds()
    found = optimise(check(read(proto)).model, "basic")
    once = optimise(check(read(random_model(random.Random(seed), 10))).model, "basic")
    assert count_nodes(found.model) == count_nodes(once.model)
    assert not {"Identity"} & {
        node.op_type for node in found.model.graph if not node.outputs[0].is_graph_output()
    }
    with epkit.load(found.model, optimise="none") as session:
        assert_same(dict(session.run(None, feeds)), expected(proto, feeds), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "text", "left"),
    [
        pytest.param(
            "share_subexpressions",
            "g (float[2] x) => (float[2] y) { a = RandomNormalLike(x)  b = RandomNormalLike(x)  y = Sub(a, b) }",
            ["RandomNormalLike", "RandomNormalLike", "Sub"],
            id="two random values",
        ),
        pytest.param(
            "share_subexpressions",
            "g (float[2] x) => (float[2] y) { a = LeakyRelu <alpha = 0.1> (x)  b = LeakyRelu <alpha = 0.2> (x)  y = Sub(a, b) }",
            ["LeakyRelu", "LeakyRelu", "Sub"],
            id="two slopes",
        ),
        pytest.param(
            "share_constants",
            "g (float[2] x, int64[2] i) => (float[2] y, int64[2] j) <float[2] a = {0, 0}, int64[2] b = {0, 0}> { y = Max(x, a)  j = Max(i, b) }",
            ["Max", "Max"],
            id="the same bits of two types",
        ),
        pytest.param(
            "remove_identities",
            "g (float[2] x) => (float[2] y) <float r = {0.5}, bool t = {1}> { a = Dropout(x, r, t)  y = Neg(a) }",
            ["Dropout", "Neg"],
            id="dropout in training",
        ),
        pytest.param(
            "clean_casts",
            "g (float[2] x) => (float[2] y) { a = Cast <to = 10> (x)  b = Cast <to = 1> (a)  y = Neg(b) }",
            ["Cast", "Cast", "Neg"],
            id="through fewer bits",
        ),
        pytest.param(
            "fold_constants",
            "g (float[2] x) => (float[2] y) { a = RandomNormal <shape = [2]> ()  y = Add(a, x) }",
            ["RandomNormal", "Add"],
            id="a random constant",
        ),
        pytest.param(
            "remove_dead_code",
            "g (float[2] x, bool c) => (float[2] y) { a = Neg(x)  y = If(c) <then_branch = p () => (float[2] u) { u = Abs(a) }, else_branch = q () => (float[2] v) { v = Abs(x) }> }",
            ["Neg", "If"],
            id="what only a body reads",
        ),
        pytest.param(
            "refine_shapes",
            "g (float[N, 4] x, int64[2] s) => (float[A, B] y) { a = Expand(x, s)  y = Neg(a) }",
            ["Expand", "Neg"],
            id="a target from outside",
        ),
    ],
)
def test_what_a_pass_leaves(name: str, text: str, left: list[str]) -> None:
    assert name in {pass_name(each) for each in CLEAN.passes}
    assert operators(text) == left


def test_every_pass_leaves_something() -> None:
    (mark,) = (each for each in test_what_a_pass_leaves.pytestmark if each.name == "parametrize")  # type: ignore[attr-defined]
    assert {str(each.values[0]) for each in mark.args[1]} == {pass_name(each) for each in CLEAN.passes}


def test_equal_constants_of_one_type_are_one() -> None:
    text = "g (float[2] x) => (float[2] y) <float[2] a = {1, 2}, float[2] b = {1, 2}> { s = Mul(x, a)  y = Add(s, b) }"
    found: Any = optimise(check(read(model(text))).model, "basic").model
    assert [value.const_value.numpy().tolist() for value in found.graph.initializers.values()] == [[1.0, 2.0]]
    assert np.float32 == next(iter(found.graph.initializers.values())).const_value.numpy().dtype
