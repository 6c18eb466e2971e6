"""Some nodes of a graph as an ONNX model of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import onnx_ir as ir

from .walk import reads


def extract(
    name: str,
    nodes: Sequence[ir.Node],
    inputs: Sequence[ir.Value],
    outputs: Sequence[ir.Value],
    opsets: Mapping[str, int],
) -> onnx.ModelProto:
    """A ModelProto of the nodes; whatever they read that is neither an input nor made inside is an initializer.

    The weights are copied into the model. Its IR version is the newest that the installed onnx writes.
    """
    made = {value for node in nodes for value in node.outputs} | set(inputs)
    constants = dict.fromkeys(value for node in nodes for value in reads(node) if value not in made)
    graph = onnx.GraphProto(name=name)
    graph.node.extend(ir.serde.serialize_node(node) for node in nodes)
    graph.input.extend(ir.serde.serialize_value(value) for value in inputs)
    graph.output.extend(ir.serde.serialize_value(value) for value in outputs)
    for value in constants:
        if value.const_value is not None:
            tensor = onnx.TensorProto()
            tensor.CopyFrom(ir.serde.serialize_tensor(value.const_value))
            tensor.name = str(value.name)
            graph.initializer.append(tensor)
    versions = dict(opsets)
    versions.update({node.domain: node.version for node in nodes if node.version is not None})
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in versions.items()]
    return onnx.helper.make_model(graph, opset_imports=imports)
