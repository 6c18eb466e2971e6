"""Walking graphs with their control-flow bodies."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
"""Operators of the default domain whose bodies the runtime itself can run."""

_GRAPH, _GRAPHS = ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS


def is_control_flow(node: ir.Node) -> bool:
    """True for If, Loop and Scan."""
    return node.domain == "" and node.op_type in CONTROL_FLOW


def bodies(node: ir.Node) -> Iterator[tuple[str, ir.Graph]]:
    """The graphs among a node's attributes, by attribute name; lists give ``name[0]``, ``name[1]``, ..."""
    attributes = node.attributes.data
    if not attributes:
        return
    for name, attribute in attributes.items():
        kind = attribute.type
        if kind is _GRAPH and isinstance(attribute.value, ir.Graph):
            yield name, attribute.value
        elif kind is _GRAPHS and attribute.value:
            yield from ((f"{name}[{i}]", graph) for i, graph in enumerate(attribute.value))


def graphs_with_nodes(graph: ir.Graph) -> Iterator[tuple[ir.Graph, list[ir.Node]]]:
    """The graph and every body below it, outer ones first, each with its nodes; bodies of nodes that are taken out
    meanwhile are left out.

    (To go over onnx_ir's linked list takes longer than what most do with a node: here it happens once.)
    """
    nodes = list(graph)
    yield graph, nodes
    for node in [node for node in nodes if node.attributes.data and node.graph is graph]:
        for (
            attribute
        ) in node.attributes.data.values():  # as bodies() has them, without a generator for each node
            kind = attribute.type
            if kind is _GRAPH and isinstance(attribute.value, ir.Graph):
                yield from graphs_with_nodes(attribute.value)
            elif kind is _GRAPHS and attribute.value:
                for body in attribute.value:
                    yield from graphs_with_nodes(body)


def all_graphs(graph: ir.Graph) -> Iterator[ir.Graph]:
    """The graph and every body below it, outer ones first."""
    return (each for each, _ in graphs_with_nodes(graph))


def all_nodes(owner: ir.Graph | ir.Function) -> list[ir.Node]:
    """The nodes of a graph or function, and of every body below it."""
    graph = owner.graph if isinstance(owner, ir.Function) else owner
    found = [nodes for _, nodes in graphs_with_nodes(graph)]
    return found[0] if len(found) == 1 else [node for nodes in found for node in nodes]


def nodes_inside(node: ir.Node) -> Iterator[ir.Node]:
    """The nodes of a node's bodies, and of the bodies within those."""
    for _, body in bodies(node):
        for inner in body:
            yield inner
            yield from nodes_inside(inner)


def captured(graph: ir.Graph) -> tuple[ir.Value, ...]:
    """Values that a body uses from outside, in order of first use."""
    own: set[ir.Value] = set(graph.inputs) | set(graph.initializers.values())
    found: dict[ir.Value, None] = {}
    for node in graph:
        found.update(dict.fromkeys(value for value in reads(node) if value not in own))
        own.update(node.outputs)
    found.update(dict.fromkeys(value for value in graph.outputs if value is not None and value not in own))
    return tuple(found)


def reads(node: ir.Node) -> tuple[ir.Value, ...]:
    """Everything a node needs: its inputs, then what its bodies capture; each once."""
    found: dict[ir.Value | None, None] = dict.fromkeys(node.inputs)
    found.pop(None, None)
    for _, body in bodies(node) if node.attributes.data else ():
        found.update(dict.fromkeys(captured(body)))
    return tuple(found)  # type: ignore[arg-type]  # None is out


def writes(node: ir.Node) -> tuple[ir.Value, ...]:
    """The outputs that have a name; an optional output that is left out has none."""
    return tuple([value for value in node.outputs if value.name])
