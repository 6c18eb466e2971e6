"""Equal constants are kept once."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import onnx_ir as ir
import xxhash

from ..model.walk import all_graphs

SMALL = 1024
"""Bytes of a tensor that is compared whole at once."""

ENDS = 32
"""Elements at both ends of a larger one, by which most differ."""


def share_constants(model: ir.Model) -> int:
    """Initializers of one type, shape and content become one; those that callers may override stay."""
    return sum(_share(graph) for graph in all_graphs(model.graph))


def _share(graph: ir.Graph) -> int:
    alike: dict[Hashable, list[ir.Value]] = {}
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is None or value.is_graph_input() or tensor.dtype == ir.DataType.STRING:
            continue
        array = tensor.numpy()
        alike.setdefault((tensor.dtype, array.shape, _head(array)), []).append(value)
    changes = 0
    for values in alike.values():
        changes += _merge(graph, values) if len(values) > 1 else 0
    return changes


def _head(array: np.ndarray[Any, Any]) -> Hashable:
    """The content of a small tensor; some of a large one."""
    if array.nbytes <= SMALL:
        return array.tobytes()
    flat = array.reshape(-1)
    return (
        flat[:ENDS].tobytes() + flat[-ENDS:].tobytes()
    )  # elsewhere it may not be in memory, and need not be


def _content(tensor: ir.TensorProtocol) -> Hashable:
    """A digest of all elements; those of small tensors are equal already."""
    array = np.ascontiguousarray(tensor.numpy())
    return None if array.nbytes <= SMALL else xxhash.xxh3_128_digest(array.reshape(-1).view(np.uint8).data)


def _merge(graph: ir.Graph, values: list[ir.Value]) -> int:
    first: dict[Hashable, ir.Value] = {}
    changes = 0
    for value in values:
        tensor = value.const_value
        assert tensor is not None
        known = first.setdefault(_content(tensor), value)
        if known is value or value.is_graph_output():
            continue
        value.replace_all_uses_with(known)
        del graph.initializers[str(value.name)]
        changes += 1
    return changes
