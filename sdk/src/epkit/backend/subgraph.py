"""What a provider is shown of a model: a list of nodes with their inputs, outputs and constants.

The same type serves ``claim`` (a whole graph, or the body of an If, Loop or Scan) and ``compile``
(the nodes of one partition). Nodes and values are onnx_ir objects; providers must not change them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..dtypes import NAME
from ..kernels.attributes import tensor_array

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnx_ir as ir


@dataclass(frozen=True)
class Subgraph:
    """Nodes in topological order.

    Attributes:
        name: for messages and traces, such as ``"acme:2"``.
        nodes: onnx_ir nodes.
        inputs: values that come from outside at run time (captured values included, constants not).
        outputs: values that are used outside.
        opsets: opset version of each domain; a node's own version, where it has one, goes first.
        depth: 0 for the main graph, 1 and more inside control-flow bodies.
    """

    name: str
    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    opsets: Mapping[str, int] = field(repr=False)
    depth: int = 0

    def opset(self, node: ir.Node) -> int:
        """The opset version under which the node is to be read."""
        return opset_of(node, self.opsets)

    def constant(self, value: ir.Value | None) -> np.ndarray[Any, Any] | None:
        """The value as a read-only array if it is known at compile time, else None."""
        return constant_of(value)

    def bodies(self, node: ir.Node) -> dict[str, Subgraph]:
        """The graphs among a node's attributes (of If, Loop, Scan), by attribute name.

        Their inputs are the formal ones, then the values captured from outside. A provider that claims the node runs
        its bodies too.
        """
        if not node.attributes.data:
            return {}
        from ..model.walk import bodies

        return {name: subgraph_of(graph, self.opsets, self.depth + 1) for name, graph in bodies(node)}

    def to_model(self) -> onnx.ModelProto:
        """The nodes as a stand-alone ONNX model, for vendors whose compiler reads ONNX.

        Constants become initializers; inputs and outputs carry their inferred types and shapes.
        """
        from ..model.extract import extract

        return extract(self.name, self.nodes, self.inputs, self.outputs, self.opsets)

    def digest(self) -> str:
        """SHA-256 of the nodes, their types and their constants, as hexadecimal text."""
        import hashlib

        from ..model.extract import fragments

        digest = hashlib.sha256()
        for fragment in fragments(self.nodes, self.inputs, self.outputs, self.opsets):
            digest.update(fragment)
        return digest.hexdigest()

    def __str__(self) -> str:
        lines = [f"subgraph {self.name}: {len(self.nodes)} nodes"]
        lines += [f"  in  {describe_value(value)}" for value in self.inputs]
        lines += [f"  {describe_node(node)}" for node in self.nodes]
        lines += [f"  out {describe_value(value)}" for value in self.outputs]
        return "\n".join(lines)


def subgraph_of(graph: ir.Graph, opsets: Mapping[str, int], depth: int) -> Subgraph:
    """A whole graph: the main one, or at a greater depth the body of an If, Loop or Scan."""
    from ..model.walk import captured

    outside = tuple(value for value in captured(graph) if not is_constant(value)) if depth else ()
    return Subgraph(
        graph.name or "graph",
        tuple(graph),
        tuple(value for value in graph.inputs if not is_constant(value)) + outside,
        tuple(value for value in graph.outputs if value is not None),
        opsets,
        depth,
    )


def opset_of(node: ir.Node, opsets: Mapping[str, int]) -> int:
    """The node's own opset version if it has one (inlined functions do), else the model's; 1 if unstated."""
    return node.version if node.version is not None else opsets.get(node.domain, 1)


def constant_of(value: ir.Value | None) -> np.ndarray[Any, Any] | None:
    """The array of an initializer, else None.

    Initializers that a caller may override are inputs, not constants.
    """
    if value is None or not is_constant(value):
        return None
    assert value.const_value is not None
    return as_array(value.const_value)


def is_constant(value: ir.Value) -> bool:
    """Whether :func:`constant_of` gives an array."""
    return value.const_value is not None and value.is_initializer() and not value.is_graph_input()


def as_array(tensor: ir.TensorProtocol) -> np.ndarray[Any, Any]:
    """A tensor as a read-only NumPy array; strings as an object array of ``str``."""
    array = tensor_array(tensor)
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array


def element_type(value: ir.Value | None) -> str:
    """The element type's name (see epkit.dtypes), or "" where it is unknown or the value is no tensor."""
    if value is None or value.dtype is None:
        return ""
    return NAME.get(int(value.dtype), "")


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape if every dimension is known, else None."""
    if value is None or value.shape is None:
        return None
    dims = tuple(value.shape)
    return (
        tuple(int(d) for d in dims if isinstance(d, int)) if all(isinstance(d, int) for d in dims) else None
    )


def describe_value(value: ir.Value) -> str:
    """``name: float32[batch, 128]`` as far as it is known."""
    kind = element_type(value) or (str(value.type) if value.type is not None else "?")
    shape = "" if value.shape is None else "[" + ", ".join(str(d) for d in value.shape) + "]"
    return f"{value.name}: {kind}{shape}"


def describe_node(node: ir.Node) -> str:
    """``name = Op(inputs) -> outputs`` on one line."""
    inputs = ", ".join("-" if value is None else str(value.name) for value in node.inputs)
    outputs = ", ".join(str(value.name) for value in node.outputs)
    return f"{node.name}: {outputs} = {operator_name(node)}({inputs})"


def operator_name(node: ir.Node) -> str:
    """``MatMul``, or ``com.microsoft.Gelu`` outside the default domain."""
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type
