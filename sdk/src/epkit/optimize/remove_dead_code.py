"""Nodes and initializers that nothing reads."""

from __future__ import annotations

import onnx_ir as ir

from ..model.walk import graphs_with_nodes


def remove_dead_code(model: ir.Model) -> int:
    """Remove what no result of its graph depends on; names of absent optional outputs are dropped too."""
    return sum(_sweep(*each) for each in reversed(list(graphs_with_nodes(model.graph))))


def _sweep(graph: ir.Graph, nodes: list[ir.Node]) -> int:
    changes = 0
    for node in reversed(nodes):
        for output in node.outputs:
            if output.uses() or output.is_graph_output():
                break
        else:
            graph.remove(node, safe=True)
            changes += 1
    for name, value in list(graph.initializers.items()):  # readers in bodies count as uses too
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del graph.initializers[name]
    return changes
