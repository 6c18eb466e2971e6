"""Puts nodes in an order in which each comes after those it reads from, or names the cycle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from epkit.errors import InvalidModelError, Where
from epkit.model.walk import bodies, graphs_with_nodes


def sort_graphs(owner: ir.Graph | ir.Function) -> bool:
    """Sort a graph or function body, and the bodies inside, if they are not sorted; says whether it did.

    Raises:
        InvalidModelError: nodes depend on one another in a cycle.
    """
    graph = owner.graph if isinstance(owner, ir.Function) else owner
    if all(_sorted(*each) for each in graphs_with_nodes(graph)):
        return False
    for each in (graph, *graph.subgraphs()):
        _refuse_cycle(each)
    graph.sort()
    return True


def sources(node: ir.Node) -> Iterator[ir.Node]:
    """Nodes of the same graph whose outputs the node reads, in its own inputs or in its bodies."""
    for value in reads(node):
        producer = value.producer()
        if producer is not None and producer.graph is node.graph:
            yield producer


def reads(node: ir.Node) -> Iterator[ir.Value]:
    """Values read by a node and by the nodes of its bodies; those defined within the bodies too."""
    for value in node.inputs:
        if value is not None:
            yield value
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            bodies: tuple[ir.Graph, ...] = (attribute.as_graph(),)
        elif attribute.type == ir.AttributeType.GRAPHS:
            bodies = attribute.as_graphs()
        else:
            continue
        for body in bodies:
            for inner in body:
                yield from reads(inner)


def _sorted(graph: ir.Graph, nodes: Sequence[ir.Node]) -> bool:
    seen: set[ir.Node] = set()
    for node in nodes:
        for value in reads(node) if any(bodies(node)) else node.inputs:
            source = None if value is None else value.producer()
            if source is not None and source not in seen and source.graph is graph:
                return False
        seen.add(node)
    return True


def _refuse_cycle(graph: ir.Graph) -> None:
    """Depth-first search without recursion; a node met again while still open closes a cycle."""
    done: set[ir.Node] = set()
    for root in graph:
        path: dict[ir.Node, Iterator[ir.Node]] = {}
        node: ir.Node | None = root
        while node is not None:
            if node not in done and node not in path:
                path[node] = sources(node)
            below = next((source for source in path.get(node, ()) if source not in done), None)
            if below is None:
                path.pop(node, None)
                done.add(node)
                node = next(reversed(path), None)
            elif below in path:
                members = list(path)
                raise _cycle([*members[members.index(below) :], below])
            else:
                node = below


def _cycle(nodes: list[ir.Node]) -> InvalidModelError:
    names = [node.name or node.op_type for node in reversed(nodes)]
    shown = names if len(names) <= 12 else [*names[:6], "...", *names[-5:]]
    return InvalidModelError(
        f"The graph has a cycle: {' -> '.join(shown)}.",
        where=Where(node=names[0]),
        remedy="a graph must not read its own results; use Loop or Scan for recurrence",
    )
