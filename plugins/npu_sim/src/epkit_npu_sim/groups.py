"""Which units must be claimed together.

Units that share nodes are one claim, because a virtual value never leaves the machine. Where a path leaves such a
claim and comes back through other units, those join it, so that it is convex. A path through a node that runs
elsewhere leaves the claim as it is: the core then turns it down, and says why.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from .unit import Unit

if TYPE_CHECKING:
    import onnx_ir as ir


Edges = dict["ir.Node", dict["ir.Node", None]]
"""From each group, or lone node, to those that read what it makes."""


def groups(units: Sequence[Unit], nodes: Sequence[ir.Node]) -> Iterator[tuple[ir.Node, ...]]:
    """The claims: tuples of nodes in the order of the graph."""
    home = _shared(units)
    members: dict[Hashable, list[ir.Node]] = {}
    for node in nodes:
        members.setdefault(home.get(node, node), []).append(node)
    for component in _components(_edges(nodes, home)):
        ours = [key for key in component if members[key][0] in home]
        if len(ours) == len(component):
            place = {node: at for at, node in enumerate(nodes)}
            yield tuple(sorted((n for key in ours for n in members[key]), key=place.__getitem__))
        else:
            yield from (tuple(members[key]) for key in ours)


def _shared(units: Sequence[Unit]) -> dict[ir.Node, ir.Node]:
    """For each node of a unit, the node that stands for all that hang together."""
    parent: dict[ir.Node, ir.Node] = {}

    def root(node: ir.Node) -> ir.Node:
        while parent.setdefault(node, node) is not node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for unit in units:
        for node in unit.nodes:
            parent[root(node)] = root(unit.nodes[0])
    return {node: root(node) for unit in units for node in unit.nodes}


def _edges(nodes: Sequence[ir.Node], home: Mapping[ir.Node, ir.Node]) -> Edges:
    inside = set(nodes)
    edges: Edges = {home.get(node, node): {} for node in nodes}
    for node in nodes:
        for value in node.outputs:
            for reader, _ in value.uses():
                if reader in inside:
                    edges[home.get(node, node)][home.get(reader, reader)] = None
    return edges


def _components(edges: Edges) -> Iterator[list[ir.Node]]:
    """Strongly connected components (Kosaraju's algorithm)."""
    back: Edges = {node: {} for node in edges}
    for node, readers in edges.items():
        for reader in readers:
            back[reader][node] = None
    seen: set[ir.Node] = set()
    finished = [node for start in edges for node in _reached(start, edges, seen)]
    seen.clear()
    yield from filter(None, (_reached(start, back, seen) for start in reversed(finished)))


def _reached(start: ir.Node, edges: Edges, seen: set[ir.Node]) -> list[ir.Node]:
    """What was not seen before, in the order in which a depth-first search leaves it."""
    if start in seen:
        return []
    seen.add(start)
    left, path = [], [(start, iter(edges[start]))]
    while path:
        node, readers = path[-1]
        reader = next((r for r in readers if r not in seen), None)
        if reader is None:
            path.pop()
            left.append(node)
        else:
            seen.add(reader)
            path.append((reader, iter(edges[reader])))
    return left
