"""The graph of a skeleton in onnx_ir's objects: what ``onnx_ir.serde`` makes of it, in less time.

Nodes, values and their types are read here, each once, since a model has thousands of them; what is rare is left to
onnx_ir. That the strings are text and the names sound is seen on the way: what exactly is wrong where, :mod:`.text` and
:mod:`.structure` say, which then look at the skeleton again.
"""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir

from epkit.model.limits import DEFAULT_LIMITS, Limits
from epkit.model.structure import check_structure
from epkit.model.text import attribute_texts, check_text, loose_texts, tensor_texts, type_texts

Values = dict[str, ir.Value]

_GRAPH, _GRAPHS = onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS
_FUNCTION_INFOS = 10
"""From this IR version on, types of values in functions are in the functions, not in the graph."""


class _Rare(Exception):
    """The model has something that is not read here."""


def deserialize(model: onnx.ModelProto, limits: Limits = DEFAULT_LIMITS) -> ir.Model:
    """The model in onnx_ir's objects.

    Raises:
        NotOnnxError, InvalidModelError, UnsafeModelError: see :mod:`.text` and :mod:`.structure`.
        Exception: whatever onnx_ir raises where the model does not make sense.
    """
    try:
        if model.configuration or (model.functions and model.ir_version < _FUNCTION_INFOS):
            raise _Rare
        reader = _Reader(limits)
        graph = reader.graph(model.graph, [], 0)
        reader.texts += loose_texts(model)
        "".join(reader.texts).encode()  # bytes, in the place of a string, cannot be joined
        if model.functions:
            _check(model, limits)
    except _Rare:
        _check(model, limits)
        return ir.serde.deserialize_model(model)
    except Exception:
        _check(model, limits)
        raise
    made = ir.serde.deserialize_model(_without_graph(model))
    graph.opset_imports.update(made.graph.opset_imports)
    made.graph = graph
    return made


def _check(model: onnx.ModelProto, limits: Limits) -> None:
    check_text(model)
    check_structure(model, limits)


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
    def __init__(self, limits: Limits) -> None:
        self.kinds: dict[bytes, tuple[ir.DataType, ir.Shape | None]] = {}
        """Types and shapes of tensors by their encoding."""
        self.texts: list[str] = []
        """All strings that ought to be text."""
        self._limits = limits
        self._nodes = 0

    def graph(self, proto: onnx.GraphProto, outer: list[Values], depth: int) -> ir.Graph:
        """A graph; ``outer`` has the values of those around it, the nearest last."""
        if proto.quantization_annotation:
            raise _Rare
        nodes = [(node, node.output[:]) for node in proto.node]
        self._nodes += len(nodes)
        self._limits.refuse_above("nesting", depth, "Depth of graphs within graphs")
        self._limits.refuse_above("nodes", self._nodes, "Number of nodes")
        infos = {info.name: info for info in proto.value_info}
        inputs = [self.value(info, ir.Value(name=info.name)) for info in proto.input]
        values: Values = {str(value.name): value for value in inputs}
        constants = [self.constant(tensor, values, infos) for tensor in proto.initializer]
        if len(inputs) + len({id(value) for value in constants} - set(map(id, inputs))) != len(values):
            raise ValueError("two values have one name")
        for _, names in nodes:
            for name in names:
                if name in values:
                    raise ValueError("two values have one name")
                if name:
                    values[name] = value = ir.Value(name=name)
                    if name in infos:
                        self.value(infos[name], value)
        if "" in values:
            raise ValueError("a value has no name")
        for name in infos.keys() - values.keys():
            self.value(infos[name], ir.Value(name=name))  # for its text
        scopes = [*outer, values]
        self.texts += (proto.name, proto.doc_string)
        return ir.Graph(
            inputs,
            [self.value(info, values[info.name]) for info in proto.output],
            nodes=[self.node(node, names, values, scopes, depth) for node, names in nodes],
            initializers=constants,
            doc_string=_doc(proto),
            name=proto.name if proto.HasField("name") else None,
            metadata_props=_metadata(proto),
        )

    def constant(
        self, proto: onnx.TensorProto, values: Values, infos: dict[str, onnx.ValueInfoProto]
    ) -> ir.Value:
        """An initializer; it may be the default of an input of a body."""
        self.texts += tensor_texts(proto)
        tensor = ir.serde.deserialize_tensor(proto)
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
        self.texts.append(proto.name)
        encoded = proto.type.SerializeToString()
        known = self.kinds.get(encoded)
        if known is None or proto.metadata_props or proto.HasField("doc_string"):
            self.texts += (proto.doc_string, *type_texts(proto.type))
            ir.serde.deserialize_value_info_proto(proto, value)
            if type(value.type) is ir.TensorType and value.type.denotation is None:
                self.kinds[encoded] = value.type.dtype, value.shape
        else:
            value.type, value.shape = ir.TensorType(known[0]), known[1]
        return value

    def node(
        self, proto: onnx.NodeProto, outputs: list[str], own: Values, scopes: list[Values], depth: int
    ) -> ir.Node:
        """A node; its values have been declared."""
        if proto.device_configurations:
            raise _Rare
        attributes, inputs, doc, metadata = proto.attribute, proto.input[:], _doc(proto), _metadata(proto)
        domain, op_type, overload, name = proto.domain, proto.op_type, proto.overload, proto.name
        texts = self.texts
        texts += inputs
        texts += outputs
        texts += (domain, op_type, overload, name)
        if doc is not None:
            texts.append(doc)
        if metadata:
            texts += (*metadata.keys(), *metadata.values())
        if len(attributes) > 1 and len({attribute.name for attribute in attributes}) != len(attributes):
            raise ValueError("a node has an attribute twice")
        return ir.Node(
            domain,
            op_type,
            [(own.get(each) or _find(each, scopes)) if each else None for each in inputs],
            [self.attribute(each, scopes, depth) for each in attributes] if attributes else (),
            overload=overload,
            outputs=[own[each] if each else ir.Value(name="") for each in outputs],
            name=name,
            doc_string=doc,
            metadata_props=metadata,
        )

    def attribute(self, proto: onnx.AttributeProto, scopes: list[Values], depth: int) -> ir.Attr:
        """An attribute; bodies see the values around them."""
        attribute_texts(proto, self.texts)
        if proto.ref_attr_name or proto.type not in (_GRAPH, _GRAPHS):
            if proto.HasField("g") or proto.graphs:
                raise _Rare
            return ir.serde.deserialize_attribute(proto)
        if proto.type == _GRAPH:
            return ir.AttrGraph(proto.name, self.graph(proto.g, scopes, depth + 1), doc_string=_doc(proto))
        graphs = [self.graph(graph, scopes, depth + 1) for graph in proto.graphs]
        return ir.AttrGraphs(proto.name, graphs, doc_string=_doc(proto))


def _find(name: str, scopes: list[Values]) -> ir.Value:
    """The value of the nearest scope.

    Raises:
        StopIteration: nothing has that name.
    """
    return next(scope[name] for scope in reversed(scopes) if name in scope)


def _doc(proto: Any) -> str | None:
    return proto.doc_string or None


def _metadata(proto: Any) -> dict[str, str] | None:
    return {entry.key: entry.value for entry in proto.metadata_props} if proto.metadata_props else None
