"""The node graph: who uses whom, captured values of control-flow bodies included; found out when somebody asks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from ..model.walk import reads


@dataclass(frozen=True)
class Edges:
    """Adjacency of one graph's nodes; edges to other graphs are left out.

    Attributes:
        order: the position of each node, a topological one.
    """

    order: dict[ir.Node, int]

    @cached_property
    def readers(self) -> dict[ir.Value, list[ir.Node]]:
        """The nodes that read each value."""
        found: dict[ir.Value, list[ir.Node]] = {}
        for node in self.order:
            for value in reads(node):
                found.setdefault(value, []).append(node)
        return found

    @cached_property
    def producers(self) -> dict[ir.Node, tuple[ir.Node, ...]]:
        """The nodes that each node reads from."""
        order = self.order
        return {
            node: tuple(
                dict.fromkeys(p for v in reads(node) if (p := v.producer()) is not None and p in order)
            )
            for node in order
        }

    @cached_property
    def users(self) -> dict[ir.Node, tuple[ir.Node, ...]]:
        """The nodes that read from each node."""
        found: dict[ir.Node, list[ir.Node]] = {node: [] for node in self.order}
        for node, producers in self.producers.items():
            for producer in producers:
                found[producer].append(node)
        return {node: tuple(users) for node, users in found.items()}


def edges_of(graph: ir.Graph) -> Edges:
    """The adjacency of a graph."""
    return Edges({node: index for index, node in enumerate(graph)})
