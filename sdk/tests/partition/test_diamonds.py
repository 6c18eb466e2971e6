"""Known shapes: what goes together, what must be apart, and the reasons that are given."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import onnx
import pytest

import epkit
from epkit.backend import Claim, Refusal, Subgraph
from epkit.errors import PlacementError
from epkit.partition.placement import Placement
from epkit.testing.awkward import Picker, awkward, everything, fixed, inside_control_flow, named
from epkit.testing.device import FakeDevice, device_provider
from epkit.testing.models import model
from epkit.testing.oracle import assert_same, expected
from epkit.testing.plugins import registry_of
from epkit.testing.reference import reference_provider

X = np.array([[-1.5, 0.5, 2.0]], np.float32)
DIAMOND = model("""
    g (float[1, 3] x) => (float[1, 3] y) {
        [a] p = Abs(x)  [b] q = Tanh(p)  [c] r = Neg(p)  [d] y = Add(q, r)
    }""")


def placed(graph: onnx.ModelProto, pick: Picker, fallback: str = "cpu") -> Placement:
    """Load for one toy provider, check the values, and give the placement."""
    with epkit.load(graph, ["toy"], registry=registry_of(awkward("toy", pick)), fallback=fallback) as session:
        feeds = {info.name: X for info in session.inputs}
        assert_same(session.run(None, feeds), expected(graph, feeds))
        return session.placement


def partitions(placement: Placement) -> list[tuple[str, ...]]:
    """The nodes of each partition in order of execution."""
    found: dict[str, list[str]] = {}
    for node in placement.nodes:
        found.setdefault(node.partition, []).append(node.node)
    return list(map(tuple, found.values()))


@pytest.mark.parametrize(
    ("mine", "wanted"),
    [
        ("abcd", [("a", "b", "c", "d")]),
        ("b", [("a", "c"), ("b",), ("d",)]),
        ("acd", [("a", "c"), ("b",), ("d",)]),
        ("bc", [("a",), ("b", "c"), ("d",)]),
        ("ad", [("a",), ("b", "c"), ("d",)]),
        ("abc", [("a", "b", "c"), ("d",)]),
        ("", [("a", "b", "c", "d")]),
    ],
)
def test_diamond(mine: str, wanted: list[tuple[str, ...]]) -> None:
    assert partitions(placed(DIAMOND, named(*mine))) == wanted


def test_independent_chains_are_one_partition() -> None:
    chains = model("""
        g (float[1, 3] x, float[1, 3] z) => (float[1, 3] p, float[1, 3] q) {
            [a] r = Abs(x)  [b] s = Neg(z)  [c] p = Tanh(r)  [d] q = Relu(s)
        }""")
    assert placed(chains, everything).partitions() == {"toy": 1}


CROSSING = model("""
    g (float[1, 3] x) => (float[1, 3] p, float[1, 3] q) {
        [a1] r = Abs(x)  [b1] s = Neg(x)  [a2] p = Tanh(s)  [b2] q = Relu(r)
    }""")
"""a1 -> b2 and b1 -> a2: the groups a and b are convex, and need each other."""

BEHIND = model("""
    g (float[1, 3] x) => (float[1, 3] n, float[1, 3] m) {
        [g2] r = Abs(x)  [n1] s = Neg(x)  [n2] n = Tanh(r)  [o] t = Relu(s)  [g1] m = Tanh(t)
    }""")
"""n1 -> o -> g1, g2 -> n2: with g1 and g2 together, a path leads from n1 over a later node back to n2."""


@pytest.mark.parametrize(
    ("graph", "groups", "refused", "why"),
    [
        (DIAMOND, [["a", "d"]], "ad", "lies between"),
        (DIAMOND, [["a", "b", "d"]], "abd", "c lies between"),
        (DIAMOND, [["a", "b"], ["b", "d"]], "d", "b went elsewhere"),
        (CROSSING, [["a1", "a2"], ["b1", "b2"]], ["b1", "b2"], "lies between"),
        (BEHIND, [["g1", "g2"], ["n1", "n2"]], ["n1", "n2"], "lies between"),
    ],
)
def test_groups_that_cannot_be(
    graph: onnx.ModelProto, groups: list[list[str]], refused: Sequence[str], why: str
) -> None:
    placement = placed(graph, fixed(groups))
    reasons = {
        node.node: reason for node in placement.nodes for reason in node.refused if reason.code == "group"
    }
    assert sorted(reasons) == sorted(refused)
    assert all(why in reason.reason for reason in reasons.values())


def test_the_first_of_two_groups_is_kept() -> None:
    owners = {
        node.node: node.provider for node in placed(CROSSING, fixed([["a1", "a2"], ["b1", "b2"]])).nodes
    }
    assert owners == {"a1": "toy", "a2": "toy", "b1": "cpu", "b2": "cpu"}


def test_a_node_that_one_claim_lost_and_another_won_is_not_refused_by_its_own_provider() -> None:
    placement = placed(DIAMOND, fixed([["a", "d"], ["a"]]))
    own = [
        (node.node, r.code) for node in placement.nodes for r in node.refused if r.provider == node.provider
    ]
    assert own == []


LOOP = model("""
    g (float[1, 3] x) => (float[1, 3] y) <int64 n = {3}, bool yes = {1}> {
        [before] p = Abs(x)
        [loop] q = Loop(n, yes, p) <body = step (int64 i, bool go, float[1, 3] s) => (bool on, float[1, 3] t) {
            [on] on = Identity(go)  [inner] u = Tanh(s)  [last] t = Add(u, p)
        }>
        [after] y = Neg(q)
    }""")


def test_only_inside_the_body() -> None:
    placement = placed(LOOP, inside_control_flow)
    owners = {node.node: node.provider for node in placement.nodes}
    assert owners == {
        "before": "cpu", "loop": "runtime", "on": "toy", "inner": "toy", "last": "toy", "after": "cpu",
    }  # fmt: skip
    assert {node.graph for node in placement.nodes if node.provider == "toy"} == {"step"}


def test_a_provider_may_take_a_loop_whole() -> None:
    registry = registry_of(reference_provider("toy", named("loop", "after")))
    with epkit.load(LOOP, ["toy"], registry=registry) as session:
        assert_same(session(x=X), expected(LOOP, {"x": X}))
        owners = {node.node: node.provider for node in session.placement.nodes}
    inside = dict.fromkeys(("on", "inner", "last"), "toy")
    assert owners == {"before": "cpu", "loop": "toy", "after": "toy", **inside}


def test_a_loop_is_not_taken_whole_from_a_preferred_provider() -> None:
    registry = registry_of(
        reference_provider("toy", named("inner")), reference_provider("whole", named("loop"))
    )
    with epkit.load(LOOP, ["toy", "whole"], registry=registry) as session:
        assert_same(session(x=X), expected(LOOP, {"x": X}))
        found = {node.node: node for node in session.placement.nodes}
    assert (found["loop"].provider, found["inner"].provider) == ("runtime", "toy")
    (reason,) = [reason for reason in found["loop"].refused if reason.provider == "whole"]
    assert (reason.code, reason.reason) == ("group", "whole would run it whole, but toy runs inner in it")
    with epkit.load(LOOP, ["whole", "toy"], registry=registry) as session:
        assert {node.provider for node in session.placement.nodes if node.graph == "step"} == {"whole"}


def test_a_node_that_is_pinned_keeps_the_loop_around_it_from_being_taken_whole() -> None:
    registry = registry_of(reference_provider("toy", named("loop", "inner")))
    with epkit.load(LOOP, ["toy"], registry=registry, placement={"inner": "cpu"}) as session:
        assert_same(session(x=X), expected(LOOP, {"x": X}))
        found = {node.node: node for node in session.placement.nodes}
    assert found["inner"].provider == "cpu" and found["loop"].provider != "toy"
    assert any(reason.provider == "toy" and reason.code == "pinned" for reason in found["loop"].refused)


def test_the_first_named_goes_first() -> None:
    registry = registry_of(awkward("one", named("a", "b")), awkward("two", everything))
    for order in (["one", "two"], ["two", "one"]):
        with epkit.load(DIAMOND, order, registry=registry) as session:
            owners = [node.provider for node in session.placement.nodes]
        assert owners == (["one", "one", "two", "two"] if order[0] == "one" else ["two"] * 4)


def test_forbidden_fallback_names_each_node_and_its_reasons() -> None:
    with pytest.raises(PlacementError) as caught:
        placed(DIAMOND, named("a"), fallback="error")
    text = str(caught.value)
    assert all(f"toy did not pick {name}" in text for name in "bcd")
    assert caught.value.where.node == "b"
    assert caught.value.remedy


def test_only_what_nobody_asked_for_is_a_fallback() -> None:
    registry = registry_of(awkward("toy", named("a")))
    with epkit.load(DIAMOND, ["toy"], registry=registry) as session:
        assert {node.node for node in session.placement.nodes if node.fallback} == set("bcd")
    with epkit.load(DIAMOND, ["toy", "cpu"], registry=registry) as session:
        assert not any(node.fallback for node in session.placement.nodes)


def test_silence_is_a_reason_too() -> None:
    class Silent(awkward("silent", everything)):  # type: ignore[misc]
        def claim(self, graph: Subgraph) -> list[Claim | Refusal]:
            return []

    with epkit.load(DIAMOND, ["silent"], registry=registry_of(Silent)) as session:
        reasons = [(r.provider, r.code) for node in session.placement.nodes for r in node.refused]
    assert reasons == [("silent", "unexplained")] * 4


def test_transfers_are_counted_and_made_once_for_each_value() -> None:
    device = FakeDevice()
    with epkit.load(
        DIAMOND, ["toy"], registry=registry_of(device_provider("toy", device, named("b", "c")))
    ) as session:
        assert session.placement.transfers == 3  # p goes in once for both arms; q and r come out
        profile = epkit.Profile()
        assert_same(
            session.run(None, {"x": X}, epkit.RunOptions(profile=profile)), expected(DIAMOND, {"x": X})
        )
    moved = sorted(e.details["value"] for e in profile.recorder.events if e.category == "transfer")
    assert moved == ["p", "q", "r"]


def test_the_report_is_plain_data() -> None:
    placement = placed(DIAMOND, named("a"))
    report = json.loads(json.dumps(placement.to_dict()))
    assert report["counts"] == {"toy": 1, "cpu": 3}
    assert {row["node"] for row in report["nodes"]} == set("abcd")
    assert "toy refused 1 x Tanh: toy did not pick b" in str(placement)
