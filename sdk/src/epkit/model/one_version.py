"""Nodes of several opset versions under one: a model has one version a domain, a graph with fused operators has not.

The newest version that a node states is taken. Older nodes stay as they are where their operator has not changed since;
the others go, one by one, through onnx's version converter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import onnx.defs
import onnx.version_converter
import onnx_ir as ir

from epkit.errors import UnsupportedOpsetError, Where
from epkit.model.infer import SMALL

Opsets = Mapping[str, int]


def in_one_version(
    nodes: Sequence[ir.Node], opsets: Opsets
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto], dict[str, int]]:
    """The nodes as protobuf, the constants that the conversion made, and the version of each domain.

    Raises:
        UnsupportedOpsetError: a node cannot be written under the version that another needs.
    """
    versions = dict(opsets)
    for node in nodes:
        if node.version is not None:
            versions[node.domain] = max(node.version, versions.get(node.domain, 1))
    protos: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    for node in nodes:
        own = node.version if node.version is not None else opsets.get(node.domain, 1)
        if _is_same(node, own, versions.get(node.domain, own)):
            protos.append(ir.serde.serialize_node(node))
            continue
        graph = _converted(node, own, versions[node.domain])
        protos += graph.node
        constants += graph.initializer
    return protos, constants, versions


def _is_same(node: ir.Node, own: int, wanted: int) -> bool:
    """Whether an operator has not changed between two versions (or nobody knows its versions)."""
    if own == wanted:
        return True
    try:
        found = [onnx.defs.get_schema(node.op_type, version, node.domain) for version in (own, wanted)]
    except onnx.defs.SchemaError:
        return not onnx.defs.has(node.op_type, node.domain)
    return bool(found[0].since_version == found[1].since_version)


def _converted(node: ir.Node, own: int, wanted: int) -> onnx.GraphProto:
    """One node under another version; names made by the conversion are the node's own, constants kept apart."""
    inputs = list(dict.fromkeys(value for value in node.inputs if value is not None))
    outputs = [value for value in node.outputs if value.name]
    graph = onnx.GraphProto(name="node", node=[ir.serde.serialize_node(node)])
    graph.input.extend(ir.serde.serialize_value(value) for value in inputs)
    graph.output.extend(ir.serde.serialize_value(value) for value in outputs)
    known = [value.const_value for value in inputs if value.const_value is not None]
    graph.initializer.extend(ir.serde.serialize_tensor(each) for each in known if _is_small(each))
    imports = [onnx.helper.make_opsetid(node.domain, own)]
    try:
        model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)
        made = onnx.version_converter.convert_version(model, wanted).graph
    except Exception as error:  # the converter raises RuntimeError and more
        raise UnsupportedOpsetError(
            f"node {node.name!r} is {node.op_type} of opset {own}, and cannot be written under opset {wanted}, which "
            f"another node of the same part needs: {str(error)[:200]}",
            where=Where(node=str(node.name)),
            remedy="claim nodes of one version only: graph.opset(node) tells a node's",
        ) from error
    _rename(made, str(node.name), {str(value.name) for value in (*inputs, *outputs)})
    return made


def _is_small(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype == ir.DataType.STRING or tensor.nbytes <= SMALL


def _rename(graph: onnx.GraphProto, prefix: str, kept: set[str]) -> None:
    """Names that are unique in the whole model; of the initializers only what the conversion made."""
    names = {name: name if name in kept or not name else f"{prefix}/{name}" for name in _names(graph)}
    made = [tensor for tensor in graph.initializer if tensor.name not in kept]
    for tensor in made:
        tensor.name = names[tensor.name]
    for index, node in enumerate(graph.node):
        node.name = f"{prefix}/{index}" if len(graph.node) > 1 else prefix
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    del graph.initializer[:]
    graph.initializer.extend(made)


def _names(graph: onnx.GraphProto) -> set[str]:
    found = {tensor.name for tensor in graph.initializer}
    return found.union(*({*node.input, *node.output} for node in graph.node))
