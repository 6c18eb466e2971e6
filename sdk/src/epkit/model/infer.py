"""Types and symbolic shapes of all values, by onnx's inference on a copy of the model without weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import onnx
import onnx.onnx_cpp2py_export.shape_inference as onnx_inference
import onnx_ir as ir

from epkit.errors import InvalidModelError, Where
from epkit.model import hazards, maptypes, misread, silent
from epkit.model.foreign import wrap_foreign
from epkit.model.long_lists import LongAttr
from epkit.model.names import free_name
from epkit.model.walk import graphs_with_nodes

Dim: TypeAlias = int | ir.SymbolicDim

SMALL = 1024  # bytes; tensors up to this keep their elements, since shapes may depend on them


def infer(model: ir.Model) -> list[str]:
    """Set types and shapes on the values of a model, in bodies of control flow too.

    What was known stays, except where inference contradicts it. Where inference is silent or fails, nothing
    changes. May be called again after any change of the graph.

    Returns:
        Warnings about declared outputs that the model does not produce.

    Raises:
        InvalidModelError: an attribute asks for an element type that does not exist.
    """
    proto = weightless(model)
    _forget_invented(proto.graph)
    wrap_foreign(model, proto)
    return merge(model, proto)


INVENTED = "unk__"
"""How names of dimensions begin that inference made up."""


def _forget_invented(graph: onnx.GraphProto) -> None:
    """Drop the names that an earlier inference made up: a name found before would hide a better one."""
    for info in graph.value_info:
        if info.type.HasField("tensor_type"):
            for dim in info.type.tensor_type.shape.dim:
                if dim.dim_param.startswith(INVENTED):
                    dim.ClearField("dim_param")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _forget_invented(attribute.g)


def _invented(model: ir.Model) -> set[str]:
    """The made-up names that are in use."""
    dims = (dim for value in _made(model) for dim in value.shape or () if not isinstance(dim, int))
    return {dim.value for dim in dims if dim.value is not None and dim.value.startswith(INVENTED)}


def is_settled(model: ir.Model) -> bool:
    """Whether inference has nothing left to find: every shape consists of numbers and names of the inputs'."""
    known = {None if isinstance(dim, int) else dim.value for i in model.graph.inputs for dim in i.shape or ()}
    known.discard(None)
    return not untyped(model) and all(
        isinstance(dim, int) or dim.value in known for value in _made(model) for dim in value.shape or ()
    )


def untyped(model: ir.Model) -> set[str]:
    """The names of the values that lack a type or a rank."""
    return {
        value.name
        for _, nodes in graphs_with_nodes(model.graph)
        for node in nodes
        for value in node.outputs
        if (value.shape is None or value.type is None) and value.name
    }


def _made(model: ir.Model) -> Iterator[ir.Value]:
    each = graphs_with_nodes(model.graph)
    return (value for _, nodes in each for node in nodes for value in node.outputs)


def merge(model: ir.Model, proto: onnx.ModelProto) -> list[str]:
    """Infer on `proto`, the same model as protobuf, and bring the result into `model`."""
    try:
        inferred, types = _infer(proto, model)
    except Exception as error:  # a model that inference cannot follow still runs
        return [f"shape inference failed: {str(error).splitlines()[0][:200]}"]
    bound = {dim for value in model.graph.inputs for dim in value.shape or () if not isinstance(dim, int)}
    return _Merge(bound, model).graph(model.graph, inferred.graph, types)


Types: TypeAlias = dict[str, bytes]
"""Types of a graph's values by their names, as protobuf has them: most values have one of a few."""


def _types(graph: onnx.GraphProto) -> Types:
    """Of the values that the nodes of a graph make."""
    found = {info.name: info.type.SerializeToString() for info in graph.value_info}
    found.update((info.name, info.type.SerializeToString()) for info in graph.output)
    return found


def _infer(proto: onnx.ModelProto, model: ir.Model) -> tuple[onnx.ModelProto, Types]:
    """Types and shapes first, then again with the values of small shape tensors, if that is safe.

    Returns:
        The model with what was found, and the types of the main graph.
    """
    inferred = onnx.ModelProto()
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    text = copy.SerializeToString()
    given = {info.name for info in copy.graph.input}
    for output in copy.graph.output:  # what is declared is compared with the result afterwards
        if output.name not in given and output.type.HasField("tensor_type"):
            output.type.tensor_type.ClearField("shape")
    if b"ai.onnx.ml" in text:
        for node in copy.graph.node:
            if node.domain == "ai.onnx.ml" and node.op_type != "TreeEnsemble":  # its lengths are compared
                _drop_long_lists(node)
    if b"RMSNormalization" in text:
        _give_scale_its_type(copy.graph)
    if b"GroupNormalization" in text:
        silent.stand_in(copy)
    hazards.hide_references(copy)
    hazards.hide_lengths(copy)
    data = copy.SerializeToString()
    result = onnx_inference.infer_shapes(data, False, False, False)
    inferred.ParseFromString(result)
    if _told(text, inferred, copy):
        data = copy.SerializeToString()
        result = onnx_inference.infer_shapes(data, False, False, False)
        inferred.ParseFromString(result)
    types = _types(inferred.graph)
    if (INVENTED.encode() in result or not _is_whole(types, model)) and hazards.may_propagate(inferred):
        inferred.ParseFromString(onnx_inference.infer_shapes(data, False, False, True))
        types = _types(inferred.graph)
    return inferred, types


def _told(text: bytes, inferred: onnx.ModelProto, copy: onnx.ModelProto) -> bool:
    """Whether ``copy`` says now what inference did not find, or found wrong."""
    told = b"Attention" in text and silent.tell_presents(inferred, copy)
    if b"Attention" in text and misread.forget_misread(inferred, copy):
        told = True
    if (b"OneHot" in text or b"Compress" in text) and silent.tell_vectors(inferred, copy):
        told = True
    return told


def _is_whole(types: Types, model: ir.Model) -> bool:
    """Whether every value has a shape, and there are no bodies and functions, in which one might have none.

    Each dimension is a number or a name then, and if inference had to invent no name, nothing is left to find.
    """
    (_, nodes), *bodies = graphs_with_nodes(model.graph)
    if model.functions or bodies:
        return False
    kinds = ((encoded, onnx.TypeProto.FromString(encoded)) for encoded in set(types.values()))
    shaped = {encoded for encoded, kind in kinds if kind.tensor_type.HasField("shape")}
    return shaped.issuperset([types.get(str(v.name)) for node in nodes for v in node.outputs if v.name])


def _give_scale_its_type(graph: onnx.GraphProto) -> None:
    """RMSNormalization has the type of its scale and the shape of X; onnx 1.23 infers the type of X."""
    for node in graph.node:
        if node.op_type == "RMSNormalization" and node.domain == "" and len(node.input) == 2:
            node.op_type = "CastLike"  # the same types and shapes
            node.ClearField("attribute")
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _give_scale_its_type(attribute.g)


def _drop_long_lists(node: onnx.NodeProto) -> None:
    """The nodes of a tree ensemble: megabytes, on which no shape depends."""
    for attribute in node.attribute:
        for name in ("ints", "floats", "strings"):
            if len(getattr(attribute, name)) > SMALL:
                attribute.ClearField(name)


class _Merge:
    def __init__(self, bound: set[ir.SymbolicDim], model: ir.Model) -> None:
        self.bound = bound
        self.model = model
        self.symbols: dict[str, ir.SymbolicDim] = {}
        self.warnings: list[str] = []
        self.protos: dict[bytes, onnx.TypeProto] = {}
        self.known: dict[bytes, tuple[ir.DataType, ir.Shape]] = {}
        """Types and dimensions by their encoding."""
        self.joined: dict[tuple[bytes, int], tuple[ir.Shape, ir.Shape]] = {}
        """What was known and what is known now, by the encoding of what was found and the identity of the former."""

    @cached_property
    def taken(self) -> set[str]:
        """The made-up names that earlier inferences left."""
        return _invented(self.model)

    def graph(self, graph: ir.Graph, proto: onnx.GraphProto, types: Types) -> list[str]:
        for index, node in enumerate(graph):
            for value in node.outputs:
                encoded = types.get(value.name or "")
                if encoded is not None:
                    self.value(value, encoded)
            if node.attributes.data:
                self.bodies(node, proto.node[index])
        return self.warnings

    def bodies(self, node: ir.Node, proto: onnx.NodeProto) -> None:
        for attribute in proto.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                self.graph(node.attributes[attribute.name].as_graph(), attribute.g, _types(attribute.g))
            elif attribute.type == onnx.AttributeProto.GRAPHS:
                for graph, inner in zip(
                    node.attributes[attribute.name].as_graphs(), attribute.graphs, strict=True
                ):
                    self.graph(graph, inner, _types(inner))

    def value(self, value: ir.Value, encoded: bytes) -> None:
        if value.type is None and value.shape is None:
            known = self.known.get(encoded) or self.tensor(value, encoded)
            if known is not None:
                value.type, value.shape = ir.TensorType(known[0]), known[1]
                return
        proto = self.proto(encoded)
        kind = proto.WhichOneof("value")
        if kind is None:
            return
        if kind == "tensor_type":
            tensor = proto.tensor_type
            if tensor.elem_type and (value.type is None or value.dtype != tensor.elem_type):
                value.type = ir.TensorType(_data_type(tensor.elem_type, value))
            if tensor.HasField("shape"):
                self.shape(value, tensor.shape, encoded)
        elif value.type is None:
            value.type = maptypes.from_proto(proto)

    def proto(self, encoded: bytes) -> onnx.TypeProto:
        if encoded not in self.protos:
            self.protos[encoded] = onnx.TypeProto.FromString(encoded)
        return self.protos[encoded]

    def tensor(self, value: ir.Value, encoded: bytes) -> tuple[ir.DataType, ir.Shape] | None:
        """The type and dimensions of a tensor, if both are given."""
        proto = self.proto(encoded)
        tensor = proto.tensor_type
        if not proto.HasField("tensor_type") or not tensor.elem_type or not tensor.HasField("shape"):
            return None
        kind = _data_type(tensor.elem_type, value)
        self.known[encoded] = kind, ir.Shape([self.dim(dim) for dim in tensor.shape.dim], frozen=True)
        return self.known[encoded]

    def shape(self, value: ir.Value, proto: onnx.TensorShapeProto, encoded: bytes) -> None:
        known = value.shape
        again = self.joined.get((encoded, id(known)))
        if again is not None:
            value.shape = again[1]
            return
        dims = [self.dim(dim) for dim in proto.dim]
        if known is None:
            value.shape = ir.Shape(dims)
        elif len(known) != len(dims) or any(
            isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(known, dims, strict=True)
        ):
            self.contradiction(value, known, dims)
            value.shape = ir.Shape(dims)
        else:
            dims = [self.better(a, b) for a, b in zip(known, dims, strict=True)]
            if tuple(dims) != known.dims:
                value.shape = ir.Shape(dims, frozen=True)
            assert value.shape is not None
            self.joined[encoded, id(known)] = known, value.shape

    def better(self, known: Dim, found: Dim) -> Dim:
        """A number before a name, the name of an input's before another's, a given before an invented one."""
        if isinstance(known, int) or isinstance(found, int):
            return known if isinstance(known, int) else found
        if found.value is None or known in self.bound:
            return known
        invented = known.value is None or known.value.startswith(INVENTED)
        return found if invented or found in self.bound else known

    def contradiction(self, value: ir.Value, declared: ir.Shape, dims: Sequence[Dim]) -> None:
        self.warnings.append(
            f"{'output' if value.is_graph_output() else 'value'} {value.name!r} is declared as {declared}, "
            f"but the model produces {ir.Shape(dims)}"
        )

    def dim(self, proto: onnx.TensorShapeProto.Dimension) -> Dim:
        if proto.HasField("dim_value"):
            return int(proto.dim_value)
        name = proto.dim_param
        length = hazards.unhidden(name)
        if length is not None:
            return length
        if name not in self.symbols:
            self.symbols[name] = ir.SymbolicDim(self.fresh(name) or None)
        return self.symbols[name]

    def fresh(self, name: str) -> str:
        """A made-up name must not be one that an earlier inference left where this one found nothing."""
        if name.startswith(INVENTED):
            name = free_name(name, self.taken)
            self.taken.add(name)
        return name


def _data_type(number: int, value: ir.Value) -> ir.DataType:
    """The element type; inference takes any number for one from an attribute such as Cast's ``to``."""
    try:
        return ir.DataType(number)
    except ValueError:
        node = value.producer()
        raise InvalidModelError(
            f"Node {node.name if node else ''!r} ({node.op_type if node else 'unknown'}) asks for the element type "
            f"{number} of {value.name!r}, which the standard does not have.",
            where=Where(node=(node and node.name) or "", value=value.name or ""),
            remedy="use one of the numbers of TensorProto.DataType, such as 1 for float32",
        ) from None


def weightless(model: ir.Model) -> onnx.ModelProto:
    """The model as protobuf, large tensors reduced to name, type and dims; for inference and checks only."""
    proto = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    _opsets(model.graph.opset_imports, proto.opset_import)
    _graph(model.graph, proto.graph, {})
    for function in model.functions.values():
        _function(function, proto.functions.add())
    return proto


def _function(function: ir.Function, proto: onnx.FunctionProto) -> None:
    proto.domain, proto.name, proto.overload = function.domain, function.name, function.overload
    proto.input.extend(value.name or "" for value in function.inputs)
    proto.output.extend(value.name or "" for value in function.outputs)
    _opsets(function.opset_imports, proto.opset_import)
    for attribute in function.attributes.values():
        if attribute.value is None:
            proto.attribute.append(attribute.name)
        else:
            _attribute(attribute, proto.attribute_proto.add(), {})
    for node in function:
        _node(node, proto.node.add(), {})


def _opsets(imports: dict[str, int], protos: Any) -> None:
    for domain, version in imports.items():
        protos.add(domain=domain, version=version)


Encoded: TypeAlias = dict[tuple[int, int], bytes]
"""Types as protobuf by element type and the identity of the shape, which many values have in common."""


def _graph(graph: ir.Graph, proto: onnx.GraphProto, known: Encoded) -> None:
    proto.name = graph.name or "graph"
    for value in graph.inputs:
        _value(value, proto.input.add(), known)
    for value in graph.outputs:
        _value(value, proto.output.add(), known)
    for value in graph.initializers.values():
        if value.const_value is not None:
            _tensor(value.const_value, proto.initializer.add(), value.name)
    for node in graph:
        _node(node, proto.node.add(), known)
        for value in node.outputs:
            if value.name and value.type is not None and not value.is_graph_output():
                _value(value, proto.value_info.add(), known)


def _value(value: ir.Value, proto: onnx.ValueInfoProto, known: Encoded) -> None:
    proto.name = value.name or ""
    kind, shape = value.type, value.shape
    key = None
    if type(kind) is ir.TensorType and kind.denotation is None:
        key = int(kind.dtype), id(shape)
        if (encoded := known.get(key)) is not None:
            proto.type.ParseFromString(encoded)
            return
    if kind is not None:
        maptypes.into_proto(kind, proto.type)
        if shape is not None and not isinstance(kind, maptypes.MapType):
            ir.serde.serialize_shape_into(proto.type, shape)
    if key is not None:
        known[key] = proto.type.SerializeToString()


def node_proto(node: ir.Node) -> onnx.NodeProto:
    """One node as protobuf, large tensors among its attributes reduced as in `weightless`."""
    proto = onnx.NodeProto()
    _node(node, proto, {})
    return proto


def type_proto(value: ir.Value | None) -> onnx.TypeProto:
    """Type and shape of a value as protobuf; empty if unknown, or if there is no value."""
    info = onnx.ValueInfoProto()
    if value is not None:
        _value(value, info, {})
    return info.type


def _node(node: ir.Node, proto: onnx.NodeProto, known: Encoded) -> None:
    proto.name, proto.domain, proto.op_type, proto.overload = (
        node.name or "",
        node.domain,
        node.op_type,
        node.overload,
    )
    proto.input.extend("" if value is None else value.name or "" for value in node.inputs)
    proto.output.extend(value.name or "" for value in node.outputs)
    for attribute in node.attributes.data.values():
        if (
            isinstance(attribute, LongAttr) and node.op_type != "TreeEnsemble"
        ):  # whose inference compares lengths
            attribute = (
                attribute.shortened()
            )  # the type of a result may depend on what there is, no shape does
        _attribute(attribute, proto.attribute.add(), known)


def _attribute(attribute: ir.Attr, proto: onnx.AttributeProto, known: Encoded) -> None:
    kind = attribute.type
    if attribute.is_ref():
        ir.serde.serialize_reference_attribute_into(proto, attribute)
    elif kind == ir.AttributeType.GRAPH:
        proto.name, proto.type = attribute.name, onnx.AttributeProto.GRAPH
        _graph(attribute.as_graph(), proto.g, known)
    elif kind == ir.AttributeType.GRAPHS:
        proto.name, proto.type = attribute.name, onnx.AttributeProto.GRAPHS
        for graph in attribute.as_graphs():
            _graph(graph, proto.graphs.add(), known)
    elif kind == ir.AttributeType.TENSOR:
        proto.name, proto.type = attribute.name, onnx.AttributeProto.TENSOR
        _tensor(attribute.value, proto.t, attribute.value.name)
    else:
        ir.serde.serialize_attribute_into(proto, attribute)


def _tensor(tensor: ir.TensorProtocol, proto: onnx.TensorProto, name: str | None) -> None:
    if tensor.dtype == ir.DataType.STRING or tensor.nbytes <= SMALL:
        ir.serde.serialize_tensor_into(proto, tensor)
    else:
        proto.data_type = tensor.dtype.value
        proto.dims.extend(tensor.shape.numpy())
    proto.name = name or ""
