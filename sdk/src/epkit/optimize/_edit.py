"""Small graph edits that several passes share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir


def replace_by_constant(node: ir.Node, tensor: ir.TensorProtocol | np.ndarray[Any, Any]) -> None:
    """Replace a node of one output by an initializer of the same name."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    put_constant(graph, node.outputs[0], tensor)
    graph.remove(node, safe=True)


def put_constant(graph: ir.Graph, old: ir.Value, tensor: ir.TensorProtocol | np.ndarray[Any, Any]) -> None:
    """Put an initializer in the place and under the name of a node's output."""
    name, old.name = str(old.name), None
    replace_value(old, make_constant(graph, tensor, name))


def make_constant(graph: ir.Graph, tensor: ir.TensorProtocol | np.ndarray[Any, Any], name: str) -> ir.Value:
    """A new initializer of the graph."""
    if isinstance(tensor, np.ndarray):
        tensor = as_tensor(tensor)
    tensor.name = name
    shape = ir.Shape(tuple(tensor.shape))  # type: ignore[arg-type]
    value = ir.Value(name=name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.initializers[name] = value
    return value


def as_tensor(array: np.ndarray[Any, Any]) -> ir.TensorProtocol:
    """An onnx_ir tensor over the array, which becomes read-only; object arrays are strings."""
    if array.dtype.kind == "O":
        encoded = [str(item).encode("utf-8") for item in array.ravel()]
        return ir.StringTensor(encoded, shape=ir.Shape(array.shape))
    array = array.copy() if array.base is not None else array
    array.flags.writeable = False
    return ir.Tensor(array, ir.DataType.from_numpy(array.dtype), shape=ir.Shape(array.shape))


_ATTRIBUTES: dict[type, Callable[[str, Any], ir.Attr]] = {
    int: ir.AttrInt64,
    float: ir.AttrFloat32,
    str: ir.AttrString,
}
_LISTS: dict[type, Callable[[str, Any], ir.Attr]] = {
    int: ir.AttrInt64s,
    float: ir.AttrFloat32s,
    str: ir.AttrStrings,
}


def as_attributes(values: Mapping[str, Any]) -> list[ir.Attr]:
    """Plain values as attributes. (onnx_ir tells their types by protocols, which takes a hundred times as long.)"""
    return [_attribute(name, value) for name, value in values.items()]


def _attribute(name: str, value: Any) -> ir.Attr:
    make = _ATTRIBUTES.get(type(value))
    if make is None and isinstance(value, list | tuple) and len({type(item) for item in value}) == 1:
        make = _LISTS.get(type(value[0]))
    return ir.convenience.convert_attribute(name, value) if make is None else make(name, value)


def replace_value(old: ir.Value, new: ir.Value) -> None:
    """Let every reader of ``old`` read ``new``, graph results included."""
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def bypass(node: ir.Node, source: ir.Value) -> bool:
    """Remove a node whose first output equals ``source``; False if a graph's interface needs it to stay.

    A result keeps its name: if ``source`` is made by a node of the same graph, it takes over the name.
    """
    output = node.outputs[0]
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    if output.is_graph_output():
        producer = source.producer()
        if producer is None or producer.graph is not graph or source.is_graph_output():
            return False
        name = output.name
        source.shape = _both(source.shape, output.shape)  # the file may say more of its result
        replace_value(output, source)
        graph.remove(node, safe=True)
        source.name = name
        return True
    replace_value(output, source)
    graph.remove(node, safe=True)
    return True


def _both(shape: ir.Shape | None, other: ir.Shape | None) -> ir.Shape | None:
    """What two shapes of one value say of it."""
    if shape is None or other is None or len(shape) != len(other):
        return other if shape is None else shape
    return ir.Shape([b if isinstance(b, int) else a for a, b in zip(shape, other, strict=True)])
