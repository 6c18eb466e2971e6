"""The partition stage: each graph becomes regions with their inputs and outputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..backend.bound import Bound
from ..backend.claim import Refusal
from ..backend.subgraph import Subgraph, describe_node, is_constant
from ..errors import PlacementError, Where
from ..model.walk import bodies, captured, is_control_flow, reads, writes
from .claims import Claims
from .costs import Costs
from .edges import Edges, edges_of
from .policy import resolve_by_cost, resolve_by_priority
from .regions import Region, group_regions


@dataclass(frozen=True)
class Partition:
    """One region: a subgraph and the provider (index into ``bounds``) that runs it; None: the runtime."""

    provider: int | None
    subgraph: Subgraph

    @property
    def name(self) -> str:
        """Unique within the model, such as ``"acme:2"``."""
        return self.subgraph.name


@dataclass(frozen=True)
class PartitionedGraph:
    """The partitions of one graph in the order in which they run, and those of its control-flow bodies."""

    graph: ir.Graph
    partitions: tuple[Partition, ...]
    bodies: Mapping[tuple[ir.Node, str], PartitionedGraph]
    captures: tuple[ir.Value, ...]


@dataclass(frozen=True)
class Partitioned:
    """A model whose every node has somebody to run it."""

    model: ir.Model
    bounds: tuple[Bound, ...]
    main: PartitionedGraph
    refusals: Mapping[ir.Node, tuple[tuple[str, Refusal], ...]]

    def __str__(self) -> str:
        return "\n".join(_lines(self.main, self.bounds, 0))


def partition(claims: Claims, costs: Costs | None = None) -> Partitioned:
    """Resolve the claims, group the nodes, and check that nobody is left without a provider.

    Args:
        claims: what the providers answered.
        costs: for the policy *cost*; None for the policy *priority*.

    Raises:
        PlacementError: naming each node that no provider takes, with the reasons.
        OptionError: if the pins do not fit the providers or the model.
    """
    if claims.pins:
        names = [str(node.name) for graph in claims.offers for node in graph]
        claims.pins.check([bound.name for bound in claims.bounds], names)
    builder = _Builder(claims, costs)
    main = builder.graph(claims.model.graph, 0)
    if builder.homeless:
        raise _nobody(builder.homeless, builder.refusals)
    return Partitioned(claims.model, claims.bounds, main, builder.refusals)


class _Builder:
    def __init__(self, claims: Claims, costs: Costs | None) -> None:
        self.claims, self.costs = claims, costs
        self.counts: dict[str, int] = {}
        self.homeless: list[ir.Node] = []
        self.refusals: dict[ir.Node, tuple[tuple[str, Refusal], ...]] = {}

    def graph(self, graph: ir.Graph, depth: int) -> PartitionedGraph:
        bounds, offers = self.claims.bounds, self.claims.offers[graph]
        edges = edges_of(graph)
        if self.costs is None:
            resolution = resolve_by_priority(edges, offers)
        else:
            resolution = resolve_by_cost(edges, offers, bounds, self.costs)
        for rank, offer in enumerate(offers):
            for node, refusal in offer.refusals.items():
                self._note(node, rank, refusal)
        if resolution.turned_down:
            owner = {node: unit.provider for unit in resolution.units for node in unit.nodes}
            for rank, refusal in resolution.turned_down:
                if owner[refusal.node] != rank:  # else another claim of the same provider won it
                    self._note(refusal.node, rank, refusal)
        inner: dict[tuple[ir.Node, str], PartitionedGraph] = {}
        for unit in resolution.units:
            if unit.provider is None and is_control_flow(unit.nodes[0]):
                node = unit.nodes[0]
                inner.update({(node, name): self.graph(body, depth + 1) for name, body in bodies(node)})
            elif unit.provider is None:
                self.homeless += unit.nodes
            else:
                self._note_inside(unit.nodes, unit.provider)
        results = dict.fromkeys(value for value in graph.outputs if value is not None)
        partitions = tuple(
            self._partition(edges, region, results, depth)
            for region in group_regions(edges, resolution.units)
        )
        return PartitionedGraph(
            graph, partitions, inner, tuple(v for v in captured(graph) if not is_constant(v)) if depth else ()
        )

    def _note_inside(self, nodes: Sequence[ir.Node], owner: int) -> None:
        """Why the nodes in the bodies of what a provider runs whole are not elsewhere."""
        for node in nodes:
            for _, body in bodies(node) if node.attributes.data else ():
                for rank, offer in enumerate(self.claims.offers[body]):
                    for inner, refusal in offer.refusals.items():
                        if rank != owner:
                            self._note(inner, rank, refusal)
                self._note_inside(tuple(body), owner)

    def _note(self, node: ir.Node, rank: int, refusal: Refusal) -> None:
        self.refusals[node] = (*self.refusals.get(node, ()), (self.claims.bounds[rank].name, refusal))

    def _partition(
        self, edges: Edges, region: Region, results: Collection[ir.Value], depth: int
    ) -> Partition:
        owner = "runtime" if region.provider is None else self.claims.bounds[region.provider].name
        number = self.counts.get(owner, 0)
        self.counts[owner] = number + 1
        opsets = self.claims.model.opset_imports
        subgraph = cut(f"{owner}:{number}", edges, tuple(region.nodes), results, opsets, depth)
        return Partition(region.provider, subgraph)


def cut(
    name: str,
    edges: Edges,
    nodes: tuple[ir.Node, ...],
    results: Collection[ir.Value],
    opsets: Mapping[str, int],
    depth: int,
) -> Subgraph:
    """Some nodes of a graph as a subgraph with its inputs and outputs: first those among ``results``, in order."""
    inside = set(nodes)
    made = dict.fromkeys(value for node in nodes for value in writes(node))
    inputs = dict.fromkeys(v for node in nodes for v in reads(node) if v not in made and not is_constant(v))
    outputs = dict.fromkeys(value for value in results if value in made)
    if len(nodes) < len(edges.order):
        for value in made:
            if any(reader not in inside for reader in edges.readers.get(value, ())):
                outputs.setdefault(value)
    return Subgraph(name, nodes, tuple(inputs), tuple(outputs), opsets, depth)


def _nobody(
    nodes: list[ir.Node], refusals: Mapping[ir.Node, tuple[tuple[str, Refusal], ...]]
) -> PlacementError:
    lines = []
    for node in nodes[:10]:
        reasons = "; ".join(f"{name}: {refusal.reason}" for name, refusal in refusals.get(node, ()))
        lines.append(f"  {describe_node(node)}\n    {reasons or 'no provider was asked'}")
    more = f"\n  ... and {len(nodes) - 10} more" if len(nodes) > 10 else ""
    return PlacementError(
        f"{len(nodes)} node(s) have no provider:\n" + "\n".join(lines) + more,
        where=Where(stage="partition", node=str(nodes[0].name)),
        remedy="name a provider that runs them, or allow the fallback",
    )


def _lines(graph: PartitionedGraph, bounds: tuple[Bound, ...], depth: int) -> list[str]:
    pad = "  " * depth
    lines = [f"{pad}graph {graph.graph.name!r}: {len(graph.partitions)} partitions"]
    for part in graph.partitions:
        lines += [pad + "  " + line for line in str(part.subgraph).splitlines()]
        for node in part.subgraph.nodes:
            for name, _ in bodies(node):
                if (node, name) in graph.bodies:
                    lines += _lines(graph.bodies[node, name], bounds, depth + 1)
    return lines
