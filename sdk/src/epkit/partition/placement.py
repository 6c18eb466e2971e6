"""The placement report: who runs each node, and why not those that were asked before."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass

import onnx_ir as ir

from ..backend.subgraph import operator_name
from ..model.names import parts_of
from ..model.walk import bodies
from .partitions import Partition, Partitioned, PartitionedGraph
from .pins import FORMAT, RUNTIME
from .schedule import Schedule, Transfer


@dataclass(frozen=True)
class Reason:
    """One provider's refusal of a node; codes are those of epkit.backend.REFUSAL_CODES."""

    provider: str
    code: str
    reason: str
    constraint: str = ""
    actual: str = ""


@dataclass(frozen=True)
class NodePlacement:
    """Who runs one node.

    Attributes:
        fallback: True if the provider was not among those that the caller named.
        refused: who else was asked, and why not.
        parts: the names of the model's nodes that a fused one stands for.
    """

    node: str
    operator: str
    graph: str
    provider: str
    partition: str
    fallback: bool
    refused: tuple[Reason, ...]
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Placement:
    """Who runs what, and why not elsewhere. Print it for a table; ``to_dict`` for programs."""

    nodes: tuple[NodePlacement, ...]
    providers: tuple[str, ...]
    transfers: int

    def counts(self) -> dict[str, int]:
        """Number of nodes by provider, in the caller's order."""
        found = Counter(node.provider for node in self.nodes)
        return {name: found[name] for name in (*self.providers, RUNTIME) if found[name]}

    def partitions(self) -> dict[str, int]:
        """Number of partitions by provider."""
        found = {(node.provider, node.partition) for node in self.nodes}
        return {name: sum(1 for provider, _ in found if provider == name) for name in self.counts()}

    def to_dict(self) -> dict[str, object]:
        """The whole report as plain values for JSON."""
        return {
            "format": FORMAT,
            "counts": self.counts(),
            "transfers": self.transfers,
            "nodes": [asdict(node) for node in self.nodes],
        }

    def reasons(self) -> list[tuple[int, str, str, str]]:
        """Refusals grouped: (nodes, provider, operator, reason), most frequent first."""
        found = Counter((r.provider, node.operator, r.reason) for node in self.nodes for r in node.refused)
        return [(count, *key) for key, count in sorted(found.items(), key=lambda item: (-item[1], item[0]))]

    def __str__(self) -> str:
        partitions = self.partitions()
        lines = [f"{len(self.nodes)} nodes, {self.transfers} transfers"]
        for name, count in self.counts().items():
            operators = Counter(node.operator for node in self.nodes if node.provider == name)
            top = ", ".join(f"{op} {n}" for op, n in operators.most_common(6))
            note = " (fallback)" if any(node.fallback for node in self.nodes if node.provider == name) else ""
            lines.append(f"  {name}{note}: {count} nodes in {partitions[name]} partitions: {top}")
        for count, provider, operator, reason in self.reasons()[:20]:
            lines.append(f"  {provider} refused {count} x {operator}: {reason}")
        return "\n".join(lines)


def placement_of(partitioned: Partitioned, plan: Schedule) -> Placement:
    """The report of a partitioned and scheduled model."""
    rows: list[NodePlacement] = []
    _collect(partitioned, partitioned.main, rows)
    names = tuple(bound.name for bound in partitioned.bounds)
    return Placement(tuple(rows), names, count_transfers(plan))


def count_transfers(plan: Schedule) -> int:
    """Transfers in a schedule and in the bodies below it."""
    total = 0
    for action in plan.actions:
        total += isinstance(action, Transfer)
        total += sum(map(count_transfers, getattr(action, "bodies", {}).values()))
    return total


def _collect(model: Partitioned, graph: PartitionedGraph, rows: list[NodePlacement]) -> None:
    for part in graph.partitions:
        for node in part.subgraph.nodes:
            rows.append(_row(model, part, node, graph.graph))
            for name, body in bodies(node):
                if (node, name) in graph.bodies:
                    _collect(model, graph.bodies[node, name], rows)
                else:
                    _collect_whole(model, part, body, rows)


def _collect_whole(model: Partitioned, part: Partition, body: ir.Graph, rows: list[NodePlacement]) -> None:
    """A body that runs with the node that it is in."""
    for node in body:
        rows.append(_row(model, part, node, body))
        for _, inner in bodies(node):
            _collect_whole(model, part, inner, rows)


def _row(model: Partitioned, part: Partition, node: ir.Node, graph: ir.Graph) -> NodePlacement:
    bound = None if part.provider is None else model.bounds[part.provider]
    refused = tuple(
        Reason(name, refusal.code, refusal.reason, refusal.constraint, refusal.actual)
        for name, refusal in model.refusals.get(node, ())
    )
    return NodePlacement(
        str(node.name),
        operator_name(node),
        str(graph.name),
        RUNTIME if bound is None else bound.name,
        part.name,
        bound is not None and bound.fallback,
        refused,
        parts_of(node),
    )
