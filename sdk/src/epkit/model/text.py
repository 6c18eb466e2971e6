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
        for text in _strings(model):
            text.encode()  # bytes, in the place of a string, have no encode
    except (UnicodeError, AttributeError):
        raise NotOnnxError(
            "The model is damaged: a name in it is not text (UTF-8).", remedy="download or export it again"
        ) from None


def _strings(model: onnx.ModelProto) -> Iterator[str]:
    yield from _opsets(model)
    for prop in model.metadata_props:
        yield from (prop.key, prop.value)
    yield from (model.producer_name, model.producer_version, model.domain, model.doc_string)
    yield from _graph(model.graph)
    for function in model.functions:
        yield from (function.name, function.domain, function.overload, function.doc_string)
        yield from (*function.input, *function.output, *function.attribute)
        yield from _opsets(function)
        yield from _infos(function.value_info)
        yield from _attributes(function.attribute_proto)
        yield from _nodes(function.node)


def _opsets(owner: onnx.ModelProto | onnx.FunctionProto) -> Iterator[str]:
    return (entry.domain for entry in owner.opset_import)


def _graph(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (graph.name, graph.doc_string)
    yield from _infos((*graph.input, *graph.output, *graph.value_info))
    for tensor in graph.initializer:
        yield from _tensor(tensor)
    for sparse in graph.sparse_initializer:
        yield from _tensor(sparse.values)
    for annotation in graph.quantization_annotation:
        yield annotation.tensor_name
        yield from (
            text for entry in annotation.quant_parameter_tensor_names for text in (entry.key, entry.value)
        )
    yield from _nodes(graph.node)


def _infos(infos: Iterable[onnx.ValueInfoProto]) -> Iterator[str]:
    for info in infos:
        yield from (info.name, info.doc_string)
        yield from _type(info.type)


def _type(kind: onnx.TypeProto) -> Iterator[str]:
    yield kind.denotation
    which = kind.WhichOneof("value")
    if which in ("tensor_type", "sparse_tensor_type"):
        for dim in getattr(kind, which).shape.dim:
            yield from (dim.dim_param, dim.denotation)
    elif which in ("sequence_type", "optional_type"):
        yield from _type(getattr(kind, which).elem_type)
    elif which == "map_type":
        yield from _type(kind.map_type.value_type)


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    for node in nodes:
        yield from (node.name, node.op_type, node.domain, node.overload, node.doc_string)
        yield from node.input
        yield from node.output
        for prop in node.metadata_props:
            yield from (prop.key, prop.value)
        yield from _attributes(node.attribute)


def _attributes(attributes: Iterable[onnx.AttributeProto]) -> Iterator[str]:
    for attribute in attributes:
        yield from (attribute.name, attribute.ref_attr_name, attribute.doc_string)
        for tensor in (*([attribute.t] if attribute.HasField("t") else ()), *attribute.tensors):
            yield from _tensor(tensor)
        for kind in (*([attribute.tp] if attribute.HasField("tp") else ()), *attribute.type_protos):
            yield from _type(kind)
        for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
            yield from _graph(graph)


def _tensor(tensor: onnx.TensorProto) -> Iterator[str]:
    yield from (tensor.name, tensor.doc_string)
    for entry in (*tensor.external_data, *tensor.metadata_props):
        yield from (entry.key, entry.value)
