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


def _edges(nodes: Sequence[ir.Node], home: Mapping[ir.Node, ir.Node]) -> dict[ir.Node, set[ir.Node]]:
    """From each group, or lone node, to those that read what it makes."""
    inside = set(nodes)
    edges: dict[ir.Node, set[ir.Node]] = {home.get(node, node): set() for node in nodes}
    for node in nodes:
        for value in node.outputs:
            for reader, _ in value.uses():
                if reader in inside:
                    edges[home.get(node, node)].add(home.get(reader, reader))
    return edges


def _components(edges: Mapping[ir.Node, set[ir.Node]]) -> Iterator[list[ir.Node]]:
    """Strongly connected components (Tarjan's algorithm, without recursion)."""
    index: dict[ir.Node, int] = {}
    low: dict[ir.Node, int] = {}
    stack: list[ir.Node] = []
    on_stack: set[ir.Node] = set()
    for start in edges:
        if start in index:
            continue
        work = [(start, iter(edges[start]))]
        index[start] = low[start] = len(index)
        stack.append(start)
        on_stack.add(start)
        while work:
            node, readers = work[-1]
            reader = next(readers, None)
            if reader is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    cut = stack.index(node)
                    yield stack[cut:]
                    on_stack.difference_update(stack[cut:])
                    del stack[cut:]
            elif reader not in index:
                index[reader] = low[reader] = len(index)
                stack.append(reader)
                on_stack.add(reader)
                work.append((reader, iter(edges[reader])))
            elif reader in on_stack:
                low[node] = min(low[node], index[reader])
