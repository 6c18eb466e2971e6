"""Checks that the strings of a model are text: protobuf lets any bytes pass, and Python meets them later."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

from epkit.errors import NotOnnxError


def check_text(model: onnx.ModelProto) -> None:
    """Raise NotOnnxError if a name, operator, domain or dimension is not UTF-8.

    Attribute values may be any bytes: custom operators keep data in them.
    """
    try:
        "".join(_strings(model)).encode()  # bytes, in the place of a string, cannot be joined
    except (UnicodeError, TypeError):
        raise NotOnnxError(
            "The model is damaged: a name in it is not text (UTF-8).", remedy="download or export it again"
        ) from None


def _strings(model: onnx.ModelProto) -> list[str]:
    return [*loose_texts(model), *_graph(model.graph), *_functions(model)]


def loose_texts(model: onnx.ModelProto) -> Iterator[str]:
    """The strings of a model beside those of its graph and its functions."""
    yield from _opsets(model)
    for prop in model.metadata_props:
        yield from (prop.key, prop.value)
    yield from (model.producer_name, model.producer_version, model.domain, model.doc_string)


def _functions(model: onnx.ModelProto) -> Iterator[str]:
    for function in model.functions:
        yield from (function.name, function.domain, function.overload, function.doc_string)
        yield from (*function.input, *function.output, *function.attribute)
        yield from _opsets(function)
        yield from _infos(function.value_info)
        found: list[str] = []
        _attributes(function.attribute_proto, found)
        _nodes(function.node, found)
        yield from found


def _opsets(owner: onnx.ModelProto | onnx.FunctionProto) -> Iterator[str]:
    return (entry.domain for entry in owner.opset_import)


def _graph(graph: onnx.GraphProto) -> list[str]:
    found = [graph.name, graph.doc_string, *_infos((*graph.input, *graph.output, *graph.value_info))]
    for tensor in graph.initializer:
        found += tensor_texts(tensor)
    for sparse in graph.sparse_initializer:
        found += tensor_texts(sparse.values)
    for annotation in graph.quantization_annotation:
        found.append(annotation.tensor_name)
        for entry in annotation.quant_parameter_tensor_names:
            found += (entry.key, entry.value)
    _nodes(graph.node, found)
    return found


def _infos(infos: Iterable[onnx.ValueInfoProto]) -> Iterator[str]:
    for info in infos:
        yield from (info.name, info.doc_string)
        yield from type_texts(info.type)


def type_texts(kind: onnx.TypeProto) -> Iterator[str]:
    """The strings of a type: names of dimensions, denotations."""
    yield kind.denotation
    which = kind.WhichOneof("value")
    if which in ("tensor_type", "sparse_tensor_type"):
        for dim in getattr(kind, which).shape.dim:
            yield from (dim.dim_param, dim.denotation)
    elif which in ("sequence_type", "optional_type"):
        yield from type_texts(getattr(kind, which).elem_type)
    elif which == "map_type":
        yield from type_texts(kind.map_type.value_type)


def _nodes(nodes: Iterable[onnx.NodeProto], found: list[str]) -> None:
    """Add the strings of nodes: into a list, since generators within generators take most of the time.

    A slice of a repeated field is quicker than going over it, and so is asking first whether there is anything.
    """
    for node in nodes:
        found += (node.name, node.op_type, node.domain, node.overload, node.doc_string)
        found += node.input[:]
        found += node.output[:]
        for prop in node.metadata_props if node.metadata_props else ():
            found += (prop.key, prop.value)
        if node.attribute:
            _attributes(node.attribute, found)


def _attributes(attributes: Iterable[onnx.AttributeProto], found: list[str]) -> None:
    for attribute in attributes:
        attribute_texts(attribute, found)
        if attribute.HasField("g"):
            found += _graph(attribute.g)
        for graph in attribute.graphs:
            found += _graph(graph)


def attribute_texts(attribute: onnx.AttributeProto, found: list[str]) -> None:
    """Add the strings of an attribute, but for graphs in it."""
    found += (attribute.name, attribute.ref_attr_name, attribute.doc_string)
    if attribute.HasField("t"):
        found += tensor_texts(attribute.t)
    if attribute.HasField("tp"):
        found += type_texts(attribute.tp)
    for tensor in attribute.tensors:
        found += tensor_texts(tensor)
    for kind in attribute.type_protos:
        found += type_texts(kind)


def tensor_texts(tensor: onnx.TensorProto) -> list[str]:
    """The strings of a tensor: names, and where external data lie; not its elements."""
    found = [tensor.name, tensor.doc_string]
    for entry in (*tensor.external_data, *tensor.metadata_props):
        found += (entry.key, entry.value)
    return found
