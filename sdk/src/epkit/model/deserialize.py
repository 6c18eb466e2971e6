"""The graph of a skeleton in onnx_ir's objects: what ``onnx_ir.serde`` makes of it, in less time.

Nodes, values and their types are read here, since a model has thousands of them; what is rare is left to onnx_ir.
"""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir

Values = dict[str, ir.Value]

_GRAPH, _GRAPHS = onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS
_FUNCTION_INFOS = 10
"""From this IR version on, types of values in functions are in the functions, not in the graph."""


class _Rare(Exception):
    """The model has something that is not read here."""


def deserialize(model: onnx.ModelProto) -> ir.Model:
    """The model in onnx_ir's objects; its values and nodes have the names that :mod:`.structure` has checked.

    Raises:
        Exception: whatever onnx_ir raises where the model does not make sense.
    """
    try:
        if model.configuration or (model.functions and model.ir_version < _FUNCTION_INFOS):
            raise _Rare
        graph = _Reader().graph(model.graph, [])
    except _Rare:
        return ir.serde.deserialize_model(model)
    made = ir.serde.deserialize_model(_without_graph(model))
    graph.opset_imports.update(made.graph.opset_imports)
    made.graph = graph
    return made


def _without_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    rest = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name == "graph":
            continue
        if field.is_repeated:
            getattr(rest, field.name).extend(value)
        else:
            setattr(rest, field.name, value)
    return rest


class _Reader:
    def __init__(self) -> None:
        self.kinds: dict[bytes, tuple[ir.DataType, ir.Shape | None]] = {}
        """Types and shapes of tensors by their encoding."""

    def graph(self, proto: onnx.GraphProto, outer: list[Values]) -> ir.Graph:
        """A graph; ``outer`` has the values of those around it, the nearest last."""
        if proto.quantization_annotation:
            raise _Rare
        inputs = [self.value(info, ir.Value(name=info.name)) for info in proto.input]
        values: Values = {str(value.name): value for value in inputs}
        infos = {info.name: info for info in proto.value_info}
        constants = [self.constant(ir.serde.deserialize_tensor(t), values, infos) for t in proto.initializer]
        for node in proto.node:
            for name in node.output[:]:
                if name:
                    values[name] = value = ir.Value(name=name)
                    if name in infos:
                        self.value(infos[name], value)
        scopes = [*outer, values]
        return ir.Graph(
            inputs,
            [self.value(info, values[info.name]) for info in proto.output],
            nodes=[self.node(node, values, scopes) for node in proto.node],
            initializers=constants,
            doc_string=_doc(proto),
            name=proto.name if proto.HasField("name") else None,
            metadata_props=_metadata(proto),
        )

    def constant(
        self, tensor: ir.TensorProtocol, values: Values, infos: dict[str, onnx.ValueInfoProto]
    ) -> ir.Value:
        """An initializer; it may be the default of an input of a body."""
        name = str(tensor.name)
        if name in values:
            values[name].const_value = tensor
            return values[name]
        shape: Any = tensor.shape
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
        values[name] = value
        return self.value(infos[name], value) if name in infos else value

    def value(self, proto: onnx.ValueInfoProto, value: ir.Value) -> ir.Value:
        """Give a value the type and shape that are declared."""
        encoded = proto.type.SerializeToString()
        known = self.kinds.get(encoded)
        if known is None or proto.metadata_props or proto.HasField("doc_string"):
            ir.serde.deserialize_value_info_proto(proto, value)
            if type(value.type) is ir.TensorType and value.type.denotation is None:
                self.kinds[encoded] = value.type.dtype, value.shape
        else:
            value.type, value.shape = ir.TensorType(known[0]), known[1]
        return value

    def node(self, proto: onnx.NodeProto, own: Values, scopes: list[Values]) -> ir.Node:
        """A node; its values have been declared."""
        if proto.device_configurations:
            raise _Rare
        attributes = proto.attribute
        return ir.Node(
            proto.domain,
            proto.op_type,
            [_find(name, own, scopes) if name else None for name in proto.input[:]],
            [self.attribute(each, scopes) for each in attributes] if attributes else (),
            overload=proto.overload,
            outputs=[own[name] if name else ir.Value(name="") for name in proto.output[:]],
            name=proto.name,
            doc_string=_doc(proto),
            metadata_props=_metadata(proto),
        )

    def attribute(self, proto: onnx.AttributeProto, scopes: list[Values]) -> ir.Attr:
        """An attribute; bodies see the values around them."""
        if proto.ref_attr_name or proto.type not in (_GRAPH, _GRAPHS):
            return ir.serde.deserialize_attribute(proto)
        if proto.type == _GRAPH:
            return ir.AttrGraph(proto.name, self.graph(proto.g, scopes), doc_string=_doc(proto))
        graphs = [self.graph(graph, scopes) for graph in proto.graphs]
        return ir.AttrGraphs(proto.name, graphs, doc_string=_doc(proto))


def _find(name: str, own: Values, scopes: list[Values]) -> ir.Value:
    value = own.get(name)
    return value if value is not None else next(scope[name] for scope in reversed(scopes) if name in scope)


def _doc(proto: Any) -> str | None:
    return str(proto.doc_string) if proto.HasField("doc_string") else None


def _metadata(proto: Any) -> dict[str, str] | None:
    return {entry.key: entry.value for entry in proto.metadata_props} if proto.metadata_props else None
