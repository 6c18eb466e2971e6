"""Nodes that do nothing: Identity, and Dropout outside of training."""

from __future__ import annotations

import onnx_ir as ir

from ..backend.subgraph import constant_of, opset_of
from ..model.walk import graphs_with_nodes
from ._edit import bypass


def remove_identities(model: ir.Model) -> int:
    """``Identity(x) = x``; ``Dropout(x) = x`` where training is off and the mask is unused."""
    changes = 0
    for _, nodes in graphs_with_nodes(model.graph):
        for node in nodes:
            source = node.inputs[0] if node.inputs else None
            if source is not None and _does_nothing(node, model) and bypass(node, source):
                changes += 1
    return changes


def _does_nothing(node: ir.Node, model: ir.Model) -> bool:
    if node.domain != "":
        return False
    if node.op_type == "Identity":
        return True
    return node.op_type == "Dropout" and _is_inference(node, opset_of(node, model.opset_imports))


def _is_inference(node: ir.Node, opset: int) -> bool:
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return False
    if opset < 7:
        test = node.attributes.get("is_test")
        return test is not None and test.as_int() == 1
    if opset < 12 or len(node.inputs) < 3 or node.inputs[2] is None:
        return True
    training = constant_of(node.inputs[2])
    return training is not None and not bool(training)
