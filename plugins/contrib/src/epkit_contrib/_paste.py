"""Functions written as text with places into which a node's subgraphs are pasted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx.parser
import onnx_ir as ir

PLACE = "place"
"""Domain of the calls that stand for a subgraph: their operator is the name of the node's attribute."""


def written(text: str, node: ir.Node, imports: Mapping[str, int]) -> ir.Function:
    """The function of a text, where each call of ``place.NAME`` is the subgraph of that attribute of the node.

    Args:
        text: in the syntax of ``onnx.parser.parse_function``.
        node: its subgraphs are cloned and keep the opset versions of the model, ``imports``.
    """
    function = ir.serde.deserialize_function(onnx.parser.parse_function(text))
    for call in [call for call in _all_nodes(function) if call.domain == PLACE]:
        _paste(call, node.attributes[call.op_type].as_graph(), imports)
    function.opset_imports.pop(PLACE, None)
    return function


def _all_nodes(owner: ir.Function | ir.Graph) -> Iterator[ir.Node]:
    for node in owner:
        yield node
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from _all_nodes(attribute.as_graph())


def _paste(call: ir.Node, subgraph: ir.Graph, imports: Mapping[str, int]) -> None:
    clone, graph = subgraph.clone(allow_outer_scope_values=True), call.graph
    assert isinstance(graph, ir.Graph)  # a call stands in a body, which has initializers
    for node in _all_nodes(clone):
        if node.version is None:
            node.version = imports.get(node.domain)
    inputs, outputs, constants = (
        list(values) for values in (clone.inputs, clone.outputs, clone.initializers.values())
    )
    nodes = list(clone)
    clone.inputs.clear()
    clone.outputs.clear()
    clone.initializers.clear()
    clone.remove(nodes)
    for value in constants:
        graph.register_initializer(value)
    for inner, given in zip(inputs, call.inputs, strict=True):
        assert given is not None
        inner.replace_all_uses_with(given)
        outputs = [given if value is inner else value for value in outputs]
    graph.insert_before(call, nodes)
    for place, value in zip(call.outputs, outputs, strict=True):
        place.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(call, safe=True)
