"""Some nodes of a graph as an ONNX model of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx
import onnx_ir as ir

from .one_version import in_one_version
from .walk import reads


def extract(
    name: str,
    nodes: Sequence[ir.Node],
    inputs: Sequence[ir.Value],
    outputs: Sequence[ir.Value],
    opsets: Mapping[str, int],
) -> onnx.ModelProto:
    """A ModelProto of the nodes; whatever they read that is neither an input nor made inside is an initializer.

    The weights are copied into the model. Its IR version is the newest that the installed onnx writes, its opset
    versions are the newest that the nodes state.

    Raises:
        UnsupportedOpsetError: nodes of different versions have no version in common.
    """
    protos, made, versions = in_one_version(nodes, opsets)
    graph = onnx.GraphProto(name=name, node=protos, initializer=made)
    graph.input.extend(ir.serde.serialize_value(value) for value in inputs)
    graph.output.extend(ir.serde.serialize_value(value) for value in outputs)
    for value in constants_of(nodes, inputs):
        if value.const_value is not None:
            tensor = onnx.TensorProto()
            tensor.CopyFrom(ir.serde.serialize_tensor(value.const_value))
            tensor.name = str(value.name)
            graph.initializer.append(tensor)
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in versions.items()]
    return onnx.helper.make_model(graph, opset_imports=imports)


def constants_of(nodes: Sequence[ir.Node], inputs: Sequence[ir.Value]) -> list[ir.Value]:
    """What the nodes read and neither get as input nor make themselves."""
    made = {value for node in nodes for value in node.outputs} | set(inputs)
    return list(dict.fromkeys(value for node in nodes for value in reads(node) if value not in made))


def fragments(
    nodes: Sequence[ir.Node],
    inputs: Sequence[ir.Value],
    outputs: Sequence[ir.Value],
    opsets: Mapping[str, int],
) -> Iterator[bytes | memoryview]:
    """Bytes that are equal if and only if the model that ``extract`` makes would be; weights are not copied."""
    yield repr(sorted(opsets.items())).encode("utf-8")
    for value in (*inputs, *outputs):
        yield ir.serde.serialize_value(value).SerializeToString(deterministic=True)
    for node in nodes:
        yield repr(node.version).encode("utf-8")
        yield ir.serde.serialize_node(node).SerializeToString(deterministic=True)
    for value in constants_of(nodes, inputs):
        tensor = value.const_value
        if tensor is not None:
            yield f"{value.name} {tensor.dtype} {tensor.shape}".encode()
            yield tensor.tobytes()
