"""BatchNormalization after Conv is a change of the convolution's weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from ..backend.subgraph import constant_of, opset_of
from ..model.walk import all_graphs
from ._edit import bypass, make_constant

Array = np.ndarray[Any, Any]


def fold_batch_normalization(model: ir.Model) -> int:
    """``BN(Conv(x, W, b)) = Conv(x, s W, s (b - mean) + beta)`` with ``s = gamma / sqrt(var + epsilon)``."""
    changes = 0
    for graph in all_graphs(model.graph):
        for node in list(graph):
            changes += _fold(node, graph, model)
    return changes


def _fold(node: ir.Node, graph: ir.Graph, model: ir.Model) -> int:
    conv = _convolution_before(node, model)
    if conv is None:
        return 0
    weight = constant_of(conv.inputs[1])
    statistics = [constant_of(value) for value in node.inputs[1:5]]
    has_bias = len(conv.inputs) > 2 and conv.inputs[2] is not None
    bias = constant_of(conv.inputs[2]) if has_bias else None
    if weight is None or any(array is None for array in statistics) or (has_bias and bias is None):
        return 0
    gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in statistics)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    scale = gamma / np.sqrt(variance + epsilon)
    old_bias = np.zeros_like(mean) if bias is None else bias.astype(np.float64)
    new_weight = weight * scale.reshape(-1, *([1] * (weight.ndim - 1)))
    new_bias = scale * (old_bias - mean) + beta
    if conv.outputs[0].is_graph_output() or not bypass(node, conv.outputs[0]):
        return 0
    _set_weights(conv, graph, new_weight.astype(weight.dtype), new_bias.astype(weight.dtype))
    return 1


def _convolution_before(node: ir.Node, model: ir.Model) -> ir.Node | None:
    if node.domain != "" or node.op_type != "BatchNormalization" or len(node.inputs) != 5:
        return None
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return None
    opset = opset_of(node, model.opset_imports)
    if opset < 7 and node.attributes.get_int("is_test", 0) != 1:
        return None
    if opset < 9 and node.attributes.get_int("spatial", 1) != 1:
        return None
    if opset >= 14 and node.attributes.get_int("training_mode", 0) != 0:
        return None
    source = node.inputs[0]
    conv = source.producer() if source is not None else None
    if conv is None or conv.op_type != "Conv" or conv.domain != "" or conv.graph is not node.graph:
        return None
    return conv if source is not None and len(source.uses()) == 1 else None


def _set_weights(conv: ir.Node, graph: ir.Graph, weight: Array, bias: Array) -> None:
    stem = f"{conv.name}/folded"
    conv.replace_input_with(1, make_constant(graph, np.ascontiguousarray(weight), f"{stem}_weight"))
    if len(conv.inputs) < 3:
        conv.resize_inputs(3)
    conv.replace_input_with(2, make_constant(graph, np.ascontiguousarray(bias), f"{stem}_bias"))
