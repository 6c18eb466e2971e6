"""Casts that change nothing."""

from __future__ import annotations

import onnx_ir as ir

from ..dtypes import NAME
from ..model.walk import graphs_with_nodes
from ._edit import bypass

_EXACT = {
    ("float16", "float32"), ("float16", "float64"), ("bfloat16", "float32"), ("bfloat16", "float64"),
    ("float32", "float64"), ("int8", "int16"), ("int8", "int32"), ("int8", "int64"), ("int16", "int32"),
    ("int16", "int64"), ("int32", "int64"), ("uint8", "uint16"), ("uint8", "uint32"), ("uint8", "uint64"),
    ("uint16", "uint32"), ("uint16", "uint64"), ("uint32", "uint64"), ("uint8", "int16"), ("uint8", "int32"),
    ("uint8", "int64"), ("uint16", "int32"), ("uint16", "int64"), ("uint32", "int64"), ("int32", "float64"),
    ("bool", "int32"), ("bool", "int64"), ("bool", "float32"), ("bool", "uint8"), ("bool", "int8"),
}  # fmt: skip
"""(narrow, wide) pairs for which narrow -> wide -> narrow is the identity."""


def clean_casts(model: ir.Model) -> int:
    """``Cast<T>(x: T) = x``, and ``Cast<T>(Cast<W>(x: T)) = x`` where W holds every value of T."""
    changes = 0
    for _, nodes in graphs_with_nodes(model.graph):
        for node in nodes:
            source = _equal_source(node)
            if source is not None and bypass(node, source):
                changes += 1
    return changes


def _equal_source(node: ir.Node) -> ir.Value | None:
    """The value that a cast's output equals, if there is one."""
    if not _is_cast(node) or node.inputs[0] is None:
        return None
    source = node.inputs[0]
    target = node.attributes["to"].as_int()
    if source.dtype is not None and int(source.dtype) == target:
        return source
    inner = source.producer()
    if inner is None or not _is_cast(inner) or inner.inputs[0] is None or inner.inputs[0].dtype is None:
        return None
    origin = inner.inputs[0]
    if origin.dtype is None or int(origin.dtype) != target:
        return None
    return origin if is_exact(origin, source) else None


def is_exact(narrow: ir.Value, wide: ir.Value) -> bool:
    """Whether the type of ``wide`` holds every value of the type of ``narrow``."""
    if narrow.dtype is None or wide.dtype is None:
        return False
    return (NAME.get(int(narrow.dtype)), NAME.get(int(wide.dtype))) in _EXACT


def _is_cast(node: ir.Node) -> bool:
    return node.domain == "" and node.op_type == "Cast" and node.attributes["to"].type == ir.AttributeType.INT
