"""Constant nodes become initializers, so that there is one form of a constant."""

from __future__ import annotations

import onnx_ir as ir

from ..kernels import table
from ..kernels.attributes import attribute_values
from ..model.walk import graphs_with_nodes
from ._edit import replace_by_constant


def lift_constants(model: ir.Model) -> int:
    """``y = Constant(value)`` becomes the initializer ``y``; sparse and function-referenced values stay."""
    return sum(_lift(node) for _, nodes in graphs_with_nodes(model.graph) for node in nodes)


def _lift(node: ir.Node) -> int:
    if node.op_type != "Constant" or node.domain != "" or "sparse_value" in node.attributes:
        return 0
    if any(attribute.is_ref() for attribute in node.attributes.data.values()):
        return 0
    attribute = node.attributes.get("value")
    if attribute is not None:
        replace_by_constant(node, attribute.value)
        return 1
    import numpy as np

    operator = table().find("", "Constant", 13)
    if operator is None:
        return 0
    (array,) = operator(np, (), attribute_values(node), n_outputs=1, opset=13)
    replace_by_constant(node, array)
    return 1
