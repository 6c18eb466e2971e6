"""Common subexpressions are computed once."""

from __future__ import annotations

import onnx_ir as ir

from ..model.walk import all_graphs, graphs_with_nodes

TYPES = (ir.AttributeType.TYPE_PROTO, ir.AttributeType.TYPE_PROTOS)


def share_subexpressions(model: ir.Model) -> int:
    """Equal operators with equal inputs and attributes become one (onnx_ir's pass; random operators stay)."""
    if not _may_share(model):
        return 0
    from onnx_ir.passes.common import CommonSubexpressionEliminationPass  # with a dozen others

    before = sum(len(graph) for graph in all_graphs(model.graph))
    types = _types_as_text(model)
    try:
        CommonSubexpressionEliminationPass()(model)
    finally:
        for node, attribute in types:
            node.attributes[attribute.name] = attribute
    return before - sum(len(graph) for graph in all_graphs(model.graph))


def _may_share(model: ir.Model) -> bool:
    """Whether two nodes of one operator read the same values; the pass itself costs a hash of every attribute."""
    looks = [
        (node.op_type, node.domain, *node.inputs)
        for _, nodes in graphs_with_nodes(model.graph)
        for node in nodes
    ]
    return len(set(looks)) < len(looks)


def _types_as_text(model: ir.Model) -> list[tuple[ir.Node, ir.Attr]]:
    """Write attributes that are types (Optional has one) as text, which unlike them can be hashed; what was there."""
    found = [
        (node, attribute)
        for _, nodes in graphs_with_nodes(model.graph)
        for node in nodes
        for attribute in node.attributes.data.values()
        if attribute.type in TYPES and not attribute.is_ref()
    ]
    for node, attribute in found:
        node.attributes[attribute.name] = ir.AttrString(attribute.name, str(attribute.value))
    return found
