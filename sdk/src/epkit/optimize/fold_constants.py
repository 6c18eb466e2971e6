"""Constant folding: a node whose inputs are all known is computed once, here."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from ..backend.subgraph import constant_of, is_constant, opset_of, static_shape
from ..kernels import table
from ..kernels.attributes import attribute_values
from ..model.walk import bodies, graphs_with_nodes
from ._edit import put_constant, replace_by_constant
from .dims import FROM_SHAPES, elements

LIMIT_BYTES = 16 * 1024 * 1024
"""Results above this size are folded only up to ``GROWTH`` times what they are made of."""

GROWTH = 4
"""Bytes for a byte: weights kept as int8 and cast to float32 at every run would cost more than the memory."""

GROWING = frozenset({"Expand", "Tile", "ConstantOfShape", "Range", "Resize", "Upsample", "Pad", "EyeLike"})
"""Operators that make much of little."""

KEEP = frozenset({"DequantizeLinear", "QuantizeLinear", "Constant", "Identity"})
"""Quantised weights stay small, for providers that compute with them."""


def fold_constants(model: ir.Model) -> int:
    """Replace nodes of known inputs by their results, and what is computed from static dimensions by its value."""
    changes = 0
    for _, nodes in graphs_with_nodes(model.graph):
        for node in nodes:
            name = node.op_type
            changes += (
                (name in _OF_SHAPE and _fold_shape(node))
                or _fold(node, model)
                or (name in FROM_SHAPES and _fold_dimensions(node))
            )
    return changes


_OF_SHAPE = frozenset({"Shape", "Size"})


def _fold_shape(node: ir.Node) -> int:
    if node.domain != "":
        return 0
    shape = static_shape(node.inputs[0])
    if shape is None:
        return 0
    result = np.array(shape, np.int64)
    if node.op_type == "Size":
        result = np.array(result.prod(), np.int64)
    else:
        attributes = attribute_values(node)
        result = result[attributes.get("start", 0) : attributes.get("end")]
    replace_by_constant(node, np.array(result, np.int64))
    return 1


def _fold(node: ir.Node, model: ir.Model) -> int:
    for value in node.inputs:
        if value is not None and (value.const_value is None or not is_constant(value)):
            return 0
    if node.op_type in KEEP or node.domain not in ("", "ai.onnx.ml") or not node.inputs or any(bodies(node)):
        return 0
    inputs = [constant_of(value) for value in node.inputs]
    opset = opset_of(node, model.opset_imports)
    operator = table().find(node.domain, node.op_type, opset)
    if operator is None or _is_random(node, opset) or _too_large(node, inputs):
        return 0
    try:
        results = operator(np, inputs, attribute_values(node), n_outputs=len(node.outputs), opset=opset)
    except Exception:
        return 0  # the node stays, and reports its error with its place when it runs
    if not all(isinstance(r, np.ndarray | np.generic) for r in results[: len(node.outputs)]):
        return 0
    if any(output.name for output in node.outputs[len(results) :]):
        return 0  # more outputs than the operator has in this mode: the node reports it when it runs
    _replace(node, [np.asarray(result) for result in results])
    return 1


def _replace(node: ir.Node, results: list[np.ndarray[Any, Any]]) -> None:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    for output, result in zip(node.outputs, results, strict=False):
        if output.name:
            put_constant(graph, output, result)
    graph.remove(node, safe=True)


def _fold_dimensions(node: ir.Node) -> int:
    """An element of a shape that is known, whatever the others are; and what is computed from such."""
    if node.outputs[0].dtype != ir.DataType.INT64:
        return 0
    shape = static_shape(node.outputs[0])
    if shape is None:
        return 0
    found = elements(node.outputs[0])
    if found is None or len(found) != math.prod(shape) or not all(isinstance(each, int) for each in found):
        return 0
    replace_by_constant(node, np.array(found, np.int64).reshape(shape))
    return 1


def _is_random(node: ir.Node, opset: int) -> bool:
    return _is_random_operator(node.op_type, opset, node.domain)


@cache
def _is_random_operator(op_type: str, opset: int, domain: str) -> bool:
    schema = onnx.defs.get_schema(op_type, opset, domain)
    return bool(schema.non_deterministic)  # type: ignore[attr-defined]  # missing in the stubs


def _too_large(node: ir.Node, inputs: list[np.ndarray[Any, Any] | None]) -> bool:
    """True if a result is known to be large, or might be (Tile, Expand and the like from small inputs)."""
    total = 0
    for output in node.outputs:
        shape = static_shape(output)
        if shape is None or output.dtype is None:
            if node.op_type in GROWING:
                return True
            continue
        size = 1 if output.dtype == ir.DataType.STRING else max(1, int(output.dtype.itemsize))
        total += math.prod(shape) * size
    return total > max(LIMIT_BYTES, GROWTH * sum(array.nbytes for array in inputs if array is not None))
