"""The dispatch record: what ran where, as a table and as a Chrome trace."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import epkit
from epkit.testing.awkward import by_chance, named
from epkit.testing.device import FakeDevice, device_provider
from epkit.testing.models import model, random_feeds, random_model
from epkit.testing.plugins import registry_of
from epkit.testing.reference import reference_provider

X = np.array([1, 2, 3], np.float32)
CHAIN = model("g (float[N] x) => (float[N] y) { [a] p = Neg(x)  [b] q = Abs(p)  [c] y = Exp(q) }")


def profiled(session: epkit.Session, runs: int = 1, tag: str = "") -> epkit.Profile:
    profile = epkit.Profile()
    for _ in range(runs):
        session.run(None, {"x": X}, epkit.RunOptions(tag=tag, profile=profile))
    return profile


@given(st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_what_ran_is_what_was_placed(seed: int) -> None:
    registry = registry_of(
        device_provider("one", FakeDevice(), by_chance(seed)),
        reference_provider("two", by_chance(seed + 1, 0.3)),
    )
    profile = epkit.Profile()
    with epkit.load(random_model(random.Random(seed), 10, 0), ["one", "two"], registry=registry) as session:
        session.run(None, random_feeds(seed), epkit.RunOptions(profile=profile))
        assert profile.dispatched() == {node.node: node.provider for node in session.placement.nodes}


def test_only_the_branch_that_was_taken_is_recorded() -> None:
    graph = model("""
        g (float[3] x, bool c) => (float[3] y) {
            [if] y = If(c) <
                then_branch = yes () => (float[3] p) { [then] p = Neg(x) },
                else_branch = no () => (float[3] q) { [else] q = Abs(x) }>
        }""")
    with epkit.load(graph) as session:
        profile = epkit.Profile()
        session.run(None, {"x": X, "c": True}, epkit.RunOptions(profile=profile))
        assert profile.dispatched() == {"if": "cpu", "then": "cpu"}
    with epkit.load(graph, placement={"if": "runtime"}) as session:
        profile = epkit.Profile()
        session.run(None, {"x": X, "c": False}, epkit.RunOptions(profile=profile))
        assert profile.dispatched() == {"else": "cpu"}
    (control,) = (event for event in profile.recorder.events if event.category == "control")
    assert (control.name, control.details["operator"]) == ("if", "If")


def test_nodes_of_equal_names_in_several_bodies_are_told_apart() -> None:
    graph = model("""
        g (float[3] x, bool c) => (float[3] y) {
            y = If(c) <
                then_branch = yes () => (float[3] p) { [n] p = Neg(x) },
                else_branch = no () => (float[3] q) { [n] q = Abs(x) }>
        }""")
    with epkit.load(graph) as session:
        names = [node.node for node in session.placement.nodes]
    assert len(set(names)) == len(names) == 3


def test_one_profile_serves_several_runs() -> None:
    with epkit.load(CHAIN) as session:
        rows = profiled(session, runs=3).rows()
    assert {(row.provider, row.operator): row.calls for row in rows} == {
        ("cpu", "Neg"): 3, ("cpu", "Abs"): 3, ("cpu", "Exp"): 3,
    }  # fmt: skip
    assert abs(sum(row.share for row in rows) - 1) < 1e-9
    assert [row.total_ms for row in rows] == sorted((row.total_ms for row in rows), reverse=True)


def test_a_partition_that_reports_no_nodes_stands_for_itself() -> None:
    with epkit.load(CHAIN, ["toy"], registry=registry_of(reference_provider("toy", named("b")))) as session:
        table = profiled(session).table()
    assert "toy         toy:0" in table
    assert table.splitlines()[0].split() == ["ms", "share", "calls", "provider", "operator"]
    assert len(table.splitlines()) == 4


def test_the_trace_is_one_that_perfetto_reads(tmp_path: Path) -> None:
    registry = registry_of(device_provider("toy", FakeDevice(), named("b")))
    with epkit.load(CHAIN, ["toy"], registry=registry) as session:
        profile = profiled(session, tag="nightly")
        session.load_trace.save(tmp_path / "load.json")
    profile.save(tmp_path / "run.json")
    events = json.loads((tmp_path / "run.json").read_text())["traceEvents"]
    assert [event["name"] for event in events if event["cat"] == "partition"] == ["cpu:0", "toy:0", "cpu:1"]
    assert [event["name"] for event in events if event["cat"] == "transfer"] == [
        "copy to device",
        "copy to host",
    ]
    assert [event["args"]["operator"] for event in events if event["cat"] == "node"] == ["Neg", "Abs", "Exp"]
    assert {event["args"].get("tag", "nightly") for event in events} == {"nightly"}
    for event in events:
        assert event["ph"] == "X"
        assert event["ts"] >= 0 <= event["dur"]
        assert {"pid", "tid"} <= event.keys()
    (transfer,) = (event for event in events if event["name"] == "copy to device")
    assert transfer["args"]["nbytes"] == X.nbytes
    partition = {event["name"]: event for event in events if event["cat"] == "partition"}
    node = next(event for event in events if event["cat"] == "node" and event["name"] == "b")
    outer = partition["toy:0"]
    assert outer["ts"] <= node["ts"] <= node["ts"] + node["dur"] <= outer["ts"] + outer["dur"] + 1e-3
    stages = json.loads((tmp_path / "load.json").read_text())["traceEvents"]
    assert {"read", "check", "optimise", "claim", "partition", "plan", "compile"} <= {
        e["name"] for e in stages
    }
