"""Whatever providers claim, the partitions are complete, can run in their order, and compute the right values."""

from __future__ import annotations

import random
from collections.abc import Iterator

import onnx_ir as ir
from hypothesis import given, settings
from hypothesis import strategies as st

import epkit
from epkit.model.walk import all_graphs, bodies, is_control_flow, reads, writes
from epkit.partition.partitions import Partition, Partitioned, PartitionedGraph
from epkit.pipeline import Settings, stages
from epkit.testing import awkward
from epkit.testing.awkward import Picker
from epkit.testing.device import FakeDevice, device_provider
from epkit.testing.models import random_feeds, random_model
from epkit.testing.oracle import assert_same, expected
from epkit.testing.plugins import registry_of
from epkit.testing.reference import reference_provider

SEEDS = st.integers(0, 2**32)
NAMES = ("first", "second", "third")

PICKERS: st.SearchStrategy[Picker] = st.one_of(
    st.just(awkward.everything),
    st.just(awkward.ends),
    st.just(awkward.inside_control_flow),
    st.builds(awkward.every_other, st.integers(0, 1)),
    st.builds(awkward.one_branch, st.integers(0, 1)),
    st.builds(awkward.by_chance, SEEDS),
    st.builds(awkward.chains, st.integers(2, 4)),
    st.builds(awkward.overlapping, st.integers(2, 4)),
    st.builds(awkward.interleaved, st.integers(2, 3)),
    st.builds(awkward.groups_by_chance, SEEDS),
)
CLAIMS = st.lists(PICKERS, min_size=1, max_size=3)


def partitioned_by(seed: int, nodes: int, pickers: list[Picker]) -> Partitioned:
    """A random model, as far as the partition stage."""
    providers = [awkward.awkward(name, pick) for name, pick in zip(NAMES, pickers, strict=False)]
    model = random_model(random.Random(seed), nodes, depth=2)
    wanted = Settings(NAMES[: len(pickers)], "cpu", "none")
    for name, value in stages(model, wanted, registry_of(*providers)):
        if name == "partition":
            assert isinstance(value, Partitioned)
            return value
    raise AssertionError("no partition stage")


def graphs_below(graph: PartitionedGraph) -> Iterator[PartitionedGraph]:
    yield graph
    for body in graph.bodies.values():
        yield from graphs_below(body)


def run_whole(found: list[PartitionedGraph]) -> set[ir.Graph]:
    """The bodies of control flow that a provider runs whole: they are not partitioned."""
    owners = {node for each in found for part in each.partitions if part.provider is not None
              for node in part.subgraph.nodes}  # fmt: skip
    return {graph for node in owners for _, body in bodies(node) for graph in all_graphs(body)}


@given(SEEDS, st.integers(1, 14), CLAIMS)
@settings(max_examples=60, deadline=None)
def test_every_node_has_one_place_and_every_partition_its_inputs_in_time(
    seed: int, nodes: int, pickers: list[Picker]
) -> None:
    result = partitioned_by(seed, nodes, pickers)
    found = list(graphs_below(result.main))
    assert {each.graph for each in found} == set(all_graphs(result.model.graph)) - run_whole(found)
    for each in found:
        placed = [node for part in each.partitions for node in part.subgraph.nodes]
        assert sorted(map(id, placed)) == sorted(map(id, each.graph))
        assert_runs_in_order(each)


def assert_runs_in_order(graph: PartitionedGraph) -> None:
    """A partition may use only what the graph is given, and what earlier partitions promise as outputs."""
    known = {*graph.graph.inputs, *graph.captures}
    for part in graph.partitions:
        assert known.issuperset(part.subgraph.inputs)
        inside = set(part.subgraph.inputs)
        for node in part.subgraph.nodes:
            assert all(value in inside or is_constant(value) for value in reads(node))
            inside.update(writes(node))
        assert inside.issuperset(part.subgraph.outputs)
        known.update(part.subgraph.outputs)
    assert all(value in known or is_constant(value) for value in graph.graph.outputs)


def is_constant(value: ir.Value) -> bool:
    return value.is_initializer()


@given(SEEDS, st.integers(1, 14), CLAIMS)
@settings(max_examples=60, deadline=None)
def test_claims_are_kept_whole_or_turned_down_with_a_reason(
    seed: int, nodes: int, pickers: list[Picker]
) -> None:
    result = partitioned_by(seed, nodes, pickers)
    for each in graphs_below(result.main):
        home = {node: part for part in each.partitions for node in part.subgraph.nodes}
        shown = awkward_view(each)
        for rank, pick in enumerate(pickers):
            for group in pick(shown):
                if any(is_control_flow(node) for node in group):
                    continue  # these providers have no kernel for it, and so do not claim the group
                together = {home[node].name for node in group}
                ours = all(home[node].provider == rank for node in group)
                earlier = len(group) == 1 and (home[group[0]].provider or 0) < rank
                assert (len(together) == 1 and ours) or earlier or told(result, home, group, rank)


def told(result: Partitioned, home: dict[ir.Node, Partition], group: tuple[ir.Node, ...], rank: int) -> bool:
    """Each node of a group that was turned down says so, unless another claim of the provider won it."""
    return all(
        home[node].provider == rank
        or any(
            name == NAMES[rank] and refusal.code == "group" for name, refusal in result.refusals.get(node, ())
        )
        for node in group
    )


def awkward_view(graph: PartitionedGraph):  # type: ignore[no-untyped-def]
    """The graph as it was shown to ``claim``."""
    from epkit.backend import Subgraph

    depth = graph.partitions[0].subgraph.depth if graph.partitions else 0
    return Subgraph(graph.graph.name or "graph", tuple(graph.graph), (), (), {}, depth)


@given(SEEDS, st.integers(1, 14), CLAIMS)
@settings(max_examples=20, deadline=None)
def test_the_same_model_and_claims_give_the_same_partitions(
    seed: int, nodes: int, pickers: list[Picker]
) -> None:
    assert str(partitioned_by(seed, nodes, pickers)) == str(partitioned_by(seed, nodes, pickers))


@given(SEEDS, st.integers(1, 10), CLAIMS, st.sampled_from(["none", "all"]))
@settings(max_examples=40, deadline=None)
def test_values_are_those_of_the_reference(seed: int, nodes: int, pickers: list[Picker], level: str) -> None:
    model, feeds = random_model(random.Random(seed), nodes), random_feeds(seed % 1000)
    providers = [awkward.awkward(name, pick) for name, pick in zip(NAMES, pickers, strict=False)]
    with epkit.load(
        model, NAMES[: len(pickers)], registry=registry_of(*providers), optimise=level
    ) as session:
        assert_same(session.run(None, feeds), expected(model, feeds))


@given(SEEDS, st.integers(1, 10), PICKERS, PICKERS, st.booleans())
@settings(max_examples=40, deadline=None)
def test_values_survive_the_way_through_other_memories(
    seed: int, nodes: int, pick: Picker, other: Picker, threads: bool
) -> None:
    model, feeds = random_model(random.Random(seed), nodes), random_feeds(seed % 1000)
    devices = FakeDevice(threads=threads), FakeDevice(alignment=64)
    providers = [device_provider("first", devices[0], pick), device_provider("second", devices[1], other)]
    with epkit.load(model, NAMES[:2], registry=registry_of(*providers), optimise="none") as session:
        for _ in range(2):
            assert_same(session.run(None, feeds), expected(model, feeds))
    for device in devices:
        device.assert_clean()


@given(SEEDS, st.integers(1, 8), st.builds(awkward.by_chance, SEEDS))
@settings(max_examples=20, deadline=None)
def test_partitions_make_models_of_their_own(seed: int, nodes: int, pick: Picker) -> None:
    """A provider that reads ONNX gets its subgraphs as models, whole loops with captured values included."""
    model, feeds = random_model(random.Random(seed), nodes), random_feeds(seed % 1000)
    registry = registry_of(reference_provider("first", pick))
    with epkit.load(model, ["first"], registry=registry, optimise="none") as session:
        assert_same(session.run(None, feeds), expected(model, feeds))
