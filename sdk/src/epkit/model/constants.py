"""Constant nodes as initializers, on the skeleton: half the nodes of some exports are constants."""

from __future__ import annotations

from collections.abc import Iterable

import onnx


def lift_constants(graphs: Iterable[onnx.GraphProto]) -> int:
    """Turn ``y = Constant(value)`` into the initializer ``y``.

    Left as they are: other forms, results of the graph, and what breaks a rule (``check`` and ``structure`` say so).

    Returns:
        How many there were.
    """
    return sum(_lift(graph) for graph in graphs)


def _lift(graph: onnx.GraphProto) -> int:
    if not any(node.op_type == "Constant" for node in graph.node):
        return 0
    taken = {value.name for value in (*graph.input, *graph.output)}
    taken.update(tensor.name for tensor in graph.initializer)
    kept = []
    for node in graph.node:
        if node.op_type == "Constant" and _is_plain(node) and node.output[0] not in taken:
            taken.add(node.output[0])
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
        else:
            kept.append(node)
    count = len(graph.node) - len(kept)
    if count:
        del graph.node[:]
        graph.node.extend(kept)
    return count


def _is_plain(node: onnx.NodeProto) -> bool:
    if node.domain or node.input or len(node.output) != 1 or not node.output[0] or len(node.attribute) != 1:
        return False
    (attribute,) = node.attribute
    is_tensor = attribute.type == onnx.AttributeProto.TENSOR and attribute.HasField("t")
    return attribute.name == "value" and is_tensor and not attribute.ref_attr_name
