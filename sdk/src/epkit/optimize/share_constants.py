"""Equal constants are kept once."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable

import onnx_ir as ir

from ..model.walk import all_graphs


def share_constants(model: ir.Model) -> int:
    """Initializers of one type, shape and content become one; those that callers may override stay."""
    return sum(_share(graph) for graph in all_graphs(model.graph))


def _share(graph: ir.Graph) -> int:
    alike: dict[Hashable, list[ir.Value]] = {}
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is None or value.is_graph_input() or tensor.dtype == ir.DataType.STRING:
            continue
        alike.setdefault((tensor.dtype, tuple(tensor.shape), _head(tensor)), []).append(value)
    changes = 0
    for values in alike.values():
        changes += _merge(graph, values) if len(values) > 1 else 0
    return changes


def _head(tensor: ir.TensorProtocol) -> Hashable:
    """The content of a small tensor; some of a large one."""
    array = tensor.numpy()
    if tensor.nbytes <= 1024:
        return array.tobytes()
    flat = array.reshape(-1)
    return flat[:: max(1, flat.size // 64)].tobytes()


def _merge(graph: ir.Graph, values: list[ir.Value]) -> int:
    first: dict[bytes, ir.Value] = {}
    changes = 0
    for value in values:
        tensor = value.const_value
        assert tensor is not None
        known = first.setdefault(hashlib.sha256(tensor.numpy().tobytes()).digest(), value)
        if known is value or value.is_graph_output():
            continue
        value.replace_all_uses_with(known)
        del graph.initializers[str(value.name)]
        changes += 1
    return changes
