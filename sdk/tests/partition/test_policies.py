"""Pinned nodes, saved placements, and the cost policy."""

from __future__ import annotations

import json
import random
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import epkit
from epkit import knobs
from epkit.diagnose.tune import tune
from epkit.errors import OptionError, PlacementError
from epkit.partition.claims import Claims
from epkit.partition.cost_policy import _Problem, best_labels, divisions
from epkit.partition.costs import Costs, CostStore, Link, signature
from epkit.partition.edges import edges_of
from epkit.pipeline import stages
from epkit.testing.awkward import awkward, by_chance, everything, named
from epkit.testing.device import FakeDevice, device_provider
from epkit.testing.models import random_model
from epkit.testing.plugins import registry_of

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
MODEL = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 18]>
    chain (float[3,4] x) => (float[3,4] y) {
        [one] a = Relu (x)
        [two] b = Exp (a)
        [three] c = Tanh (b)
        [four] y = Relu (c)
    }
""")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(knobs.CACHE_DIR.name, str(tmp_path / "cache"))
    return tmp_path


def placed(placement: Any, *providers: Any, **options: Any) -> dict[str, str]:
    registry = registry_of(*providers)
    names = [provider.name for provider in providers]
    with epkit.load(MODEL, names, registry=registry, placement=placement, **options) as session:
        expected = np.maximum(np.tanh(np.exp(np.maximum(X, 0))), 0)
        np.testing.assert_allclose(session(x=X)["y"], expected, rtol=1e-6)
        return {node.node: node.provider for node in session.placement.nodes}


ACME, BETA = awkward("acme", everything), awkward("beta", everything)


@pytest.mark.parametrize(
    ("pins", "expected"),
    [
        ({}, ["acme"] * 4),
        ({"two": "beta"}, ["acme", "beta", "acme", "acme"]),
        ({"t*": "cpu"}, ["acme", "cpu", "cpu", "acme"]),
        ({"op:Relu": "beta"}, ["beta", "acme", "acme", "beta"]),
        ({"op:Relu": "beta", "f*": "cpu", "four": "acme"}, ["beta", "acme", "acme", "acme"]),
    ],
)
def test_pins(pins: dict[str, str], expected: list[str]) -> None:
    assert list(placed(pins, ACME, BETA).values()) == expected


def test_a_pin_is_the_reason_of_the_others() -> None:
    with epkit.load(MODEL, ["acme"], registry=registry_of(ACME), placement={"two": "cpu"}) as session:
        (refused,) = session.placement.nodes[1].refused
    assert (refused.provider, refused.code) == ("acme", "pinned")


def test_a_pin_that_its_provider_refuses_is_an_error_with_the_reason() -> None:
    only = awkward("only", named("one"))
    with pytest.raises(PlacementError, match="did not pick two"):
        placed({"two": "only"}, only)


def test_a_pin_to_an_unknown_provider_names_those_there_are() -> None:
    with pytest.raises(OptionError, match="gamma") as caught:
        placed({"two": "gamma"}, ACME)
    assert "acme" in caught.value.remedy


def test_a_pin_that_fits_nothing_is_told() -> None:
    pins = {"op:Conv": "acme", "z*": "acme", "five": "acme", "t*": "acme", "op:Relu": "acme"}
    with epkit.load(MODEL, ["acme"], registry=registry_of(ACME), placement=pins) as session:
        told = [text for text in session.warnings if "fits no node" in text]
    assert [text.split("'")[1] for text in told] == ["five", "z*", "op:Conv"]


def test_a_saved_placement_is_applied_again(own_cache: Path) -> None:
    registry = registry_of(ACME, BETA)
    with epkit.load(MODEL, ["acme"], registry=registry, placement={"t*": "cpu"}) as session:
        saved = own_cache / "plan.json"
        saved.write_text(json.dumps(session.placement.to_dict()))
        before = [node.provider for node in session.placement.nodes]
    assert list(placed(saved, ACME).values()) == before
    other = onnx.ModelProto.FromString(MODEL.SerializeToString())
    other.graph.node[0].name = "renamed"
    with pytest.raises(OptionError, match="'one'"):
        epkit.load(other, ["acme"], registry=registry, placement=saved)


def test_a_file_that_is_no_placement(own_cache: Path) -> None:
    (own_cache / "plan.json").write_text("{}")
    with pytest.raises(OptionError, match="no saved placement"):
        epkit.load(MODEL, ["cpu"], placement=own_cache / "plan.json")


def test_an_unknown_policy_lists_the_policies() -> None:
    with pytest.raises(OptionError) as caught:
        epkit.load(MODEL, ["cpu"], policy="luck")
    assert "cost" in caught.value.remedy


def test_priority_pays_for_copies_that_cost_avoids() -> None:
    """A device that takes every second node is named first: each node there costs two copies."""
    far = device_provider("far", FakeDevice(), named("one", "three"))
    assert list(placed(None, far).values()) == ["far", "cpu", "far", "cpu"]
    assert set(placed(None, far, policy="cost").values()) == {"cpu"}


def test_times_that_were_measured_decide(own_cache: Path) -> None:
    registry = registry_of(ACME)
    with epkit.load(MODEL, ["acme"], registry=registry, policy="cost") as session:
        assert session.placement.counts() == {"acme": 4}
        bounds = session._engine.bounds
    model = ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(MODEL))
    tune(MODEL, epkit_settings("acme"), {"x": X}, registry=registry)
    store = CostStore(knobs.CACHE_DIR.get())
    tables = [store.load(bound) for bound in bounds]
    keys = {signature(node, 18) for node in model.graph}
    assert len(keys) == 3
    for table in tables:
        assert table is not None
        assert set(table.seconds) == keys
        assert all(0 < seconds < 1 for seconds in table.seconds.values())
    mine, cpus = tables
    assert mine is not None
    assert cpus is not None
    relu, exp, tanh = (signature(node, 18) for node in list(model.graph)[:3])
    mine.seconds.update({relu: 1.0, exp: 1.0, tanh: 1e-6})
    cpus.seconds.update({relu: 1e-6, exp: 1e-6, tanh: 1.0})
    for table in (mine, cpus):
        table.divisions.clear()
        store.save(table)
    assert list(placed(None, ACME, policy="cost").values()) == ["cpu", "cpu", "acme", "cpu"]


@pytest.mark.parametrize(("gain", "divided"), [(0.05, False), (0.2, True)])
def test_a_division_has_to_be_worth_it(own_cache: Path, gain: float, divided: bool) -> None:
    """Nodes are measured one by one: a few per cent are no reason to cut a model."""
    tuned = tune(MODEL, epkit_settings("acme"), {"x": X}, registry=registry_of(ACME))
    model = ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(MODEL))
    relu, exp, tanh = (signature(node, 18) for node in list(model.graph)[:3])
    tables = {each.provider: each.table for each in tuned}
    tables["cpu"].seconds.update({relu: 1e-3, exp: 1e-3, tanh: 1e-3})
    tables["acme"].seconds.update({relu: 1.0, exp: 1e-3 * (1 - 4 * gain), tanh: 1e-3})
    for table in tables.values():
        table.divisions.clear()
        CostStore(knobs.CACHE_DIR.get()).save(table)
    found = placed(None, ACME, policy="cost")
    assert [node for node, provider in found.items() if provider == "acme"] == (["two"] if divided else [])


def tuned_claims() -> tuple[Any, ...]:
    """Edges, offers, bounds and costs of the model on acme and the CPU, where each is as fast for every node."""
    registry, wanted = registry_of(ACME), epkit_settings("acme")
    tune(MODEL, wanted, {"x": X}, registry=registry)
    steps = stages(MODEL, wanted, registry)
    claims = next(value for name, value in steps if name == "claim")
    assert isinstance(claims, Claims)
    store, graph = CostStore(knobs.CACHE_DIR.get()), claims.model.graph
    tables = {rank: table for rank, bound in enumerate(claims.bounds) if (table := store.load(bound))}
    assert len(tables) == 2
    for table in tables.values():
        assert len(table.divisions) >= 1  # everything on it; perhaps a division, too
        table.seconds.update(dict.fromkeys(table.seconds, 1e-3))
        table.divisions.clear()
    steps.close()
    return edges_of(graph), claims.offers[graph], claims.bounds, Costs(tables, claims.model.opset_imports)


def test_times_of_nodes_are_scaled_to_what_they_take_together() -> None:
    """On the CPU the four run as one: a node that is somewhat slower there alone is no reason to cut."""
    edges, offers, bounds, costs = tuned_claims()
    nodes = list(edges.order)
    tanh = signature(nodes[2], 18)
    costs.tables[1].seconds[tanh] = 4e-3
    assert best_labels(edges, offers, bounds, costs)[nodes[2]] == 0
    costs.tables[1].divisions[str(costs.division_key(dict.fromkeys(nodes, 1)))] = 0.7e-3
    assert set(best_labels(edges, offers, bounds, costs).values()) == {1}


def test_what_was_measured_as_a_whole_decides() -> None:
    edges, offers, bounds, costs = tuned_claims()
    nodes = list(edges.order)
    costs.tables[1].seconds[signature(nodes[2], 18)] = 1e-2
    costs.tables[0].seconds[signature(nodes[1], 18)] = 1e-2
    cheapest = best_labels(edges, offers, bounds, costs)
    assert set(cheapest.values()) == {0, 1}
    for labels, seconds in (
        (dict.fromkeys(nodes, 0), 13e-3),
        (dict.fromkeys(nodes, 1), 13e-3),
        (cheapest, 14e-3),
    ):
        costs.tables[1].divisions[str(costs.division_key(labels))] = seconds
    found = divisions(edges, offers, bounds, costs)
    assert [division.measured for division in found] == [13e-3, 13e-3, 14e-3]
    assert found[2].predicted < 13e-3  # and yet
    assert len(set(best_labels(edges, offers, bounds, costs).values())) == 1


def test_links_are_measured_on_devices_with_memory_of_their_own() -> None:
    far = device_provider("far", FakeDevice(), everything)
    found = tune(MODEL, epkit_settings("far"), {"x": X}, registry=registry_of(far))
    table = {tuned.provider: tuned.table for tuned in found}["far"]
    assert table.to_device != Link()
    assert table.to_host != Link()


def epkit_settings(*names: str) -> Any:
    return epkit.api.make_settings(names, "cpu", "basic", None, (), None, None)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 7), st.lists(st.floats(1e-6, 1e-3), min_size=14, max_size=14))
def test_two_providers_get_the_best_division_of_all(seed: int, size: int, times: list[float]) -> None:
    """Against every division there is."""
    far = device_provider("far", FakeDevice(), by_chance(seed, 0.8))
    model = random_model(random.Random(seed), size)
    wanted = epkit.api.make_settings(["far"], "cpu", "none", None, (), None, None)
    steps = stages(model, wanted, registry_of(far))
    claims = next(value for name, value in steps if name == "claim")
    assert isinstance(claims, Claims)
    graph = claims.model.graph
    offers, edges = claims.offers[graph], edges_of(graph)
    problem = _Problem(edges, offers, claims.bounds, Costs({}, {}))
    if len(problem.choices) > 10:
        return
    for index, key in enumerate(problem.seconds):
        problem.seconds[key] = times[index % len(times)]
    found = problem.improved({node: ranks[0] for node, ranks in problem.choices.items()})
    nodes = list(problem.choices)
    best = min(
        problem.total(dict(zip(nodes, ranks, strict=True)))
        for ranks in product(*(problem.choices[node] for node in nodes))
    )
    steps.close()
    assert problem.total(found) <= best * (1 + 1e-5) + 1e-8
    assert best_labels(edges, offers, claims.bounds, Costs({}, {})).keys() == problem.choices.keys()
