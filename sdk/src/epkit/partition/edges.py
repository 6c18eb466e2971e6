"""The node graph: who uses whom, captured values of control-flow bodies included."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ..model.walk import reads


@dataclass(frozen=True)
class Edges:
    """Adjacency of one graph's nodes: position (a topological one), neighbours, and the readers of each
    value.
    """

    order: dict[ir.Node, int]
    producers: dict[ir.Node, tuple[ir.Node, ...]]
    users: dict[ir.Node, tuple[ir.Node, ...]]
    readers: dict[ir.Value, list[ir.Node]]


def edges_of(graph: ir.Graph) -> Edges:
    """The adjacency of a graph; edges to other graphs are left out."""
    order = {node: index for index, node in enumerate(graph)}
    producers: dict[ir.Node, tuple[ir.Node, ...]] = {}
    users: dict[ir.Node, list[ir.Node]] = {node: [] for node in order}
    readers: dict[ir.Value, list[ir.Node]] = {}
    for node in order:
        values = reads(node)
        for value in values:
            readers.setdefault(value, []).append(node)
        found = (value.producer() for value in values)
        producers[node] = tuple(dict.fromkeys(p for p in found if p is not None and p in order))
        for producer in producers[node]:
            users[producer].append(node)
    return Edges(order, producers, {node: tuple(found) for node, found in users.items()}, readers)
