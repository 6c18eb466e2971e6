"""Replaces calls of functions by their bodies, and finds the bodies that the standard gives for operators."""

from __future__ import annotations

from collections.abc import MutableSet
from typing import Any

import onnx
import onnx.defs
import onnx_ir as ir

from epkit.model.infer import node_proto, type_proto
from epkit.model.names import free_name
from epkit.model.walk import reads

KEPT = "epkit.kept"
"""Marks nodes of a function's body that were nodes of the graph before: inlined, they get their names back."""

CAPTURES = "captures"
"""Under this name a function's ``meta`` lists outer values, read by bodies that it took over from its call:
its last inputs stand for them."""


def inline_call(
    graph: ir.Graph, node: ir.Node, function: ir.Function, used_names: MutableSet[str]
) -> list[ir.Node]:
    """Replace one call in its graph by clones of the function's nodes.

    Values and nodes inside get names of their own, "call/inner". Each clone carries the opset version that
    the function imports, so bodies written against other versions than the model keep their meaning.
    Constants become initializers. Attributes of the call, then defaults of the function, take the place of
    references to them.

    Args:
        graph: the graph or body that holds the call.
        node: the call; removed from the graph.
        function: what it calls.
        used_names: all value names of the model; those of the clones are added.

    Returns:
        The new nodes, in order; with an Identity for each output that the function passes through.
    """
    cloner = _Cloner(node, function, used_names, {each.name or "" for each in graph})
    new = [each for each in cloner.nodes(function) if not cloner.is_constant(each, graph)]
    new += _connect_outputs(node, function, cloner)
    graph.insert_before(node, new)
    for index in range(len(node.inputs)):
        node.replace_input_with(index, None)
    graph.remove(node)
    return new


def schema_function(node: ir.Node, opset: int) -> ir.Function | None:
    """The body that the standard gives for an operator, or None if it gives none.

    Args:
        node: a node of the standard; some operators need types on its inputs, else the answer is None.
        opset: version of the node's domain.

    Returns:
        A function for this node alone. Its opset_imports say under which version the body is to be read: the
        newest that has a body, not above `opset` if possible. Defaults of attributes are the schema's.
    """
    found = _schema(node.domain, node.op_type, opset)
    if found is None:
        return None
    schema, version, needs_types = found
    try:
        if needs_types:
            types = [type_proto(value).SerializeToString() for value in node.inputs]
            call = node_proto(node).SerializeToString()
            data = schema.get_context_dependent_function_with_opset_version(version, call, types)
        else:
            data = schema.get_function_with_opset_version(version)
        proto = onnx.FunctionProto.FromString(data)
    except Exception:  # the builders in onnx raise if a type that they need is unknown
        return None
    if not _settle_outputs(proto, node):
        return None
    proto.domain, proto.name = node.domain, node.op_type
    _add_defaults(proto, schema)
    captures = [value for value in reads(node) if value not in node.inputs]
    proto.input.extend(value.name or "" for value in captures)
    function = ir.serde.deserialize_function(proto)
    function.meta[CAPTURES] = captures
    return function


class _Cloner:
    """Clones the nodes of one function body for one call of it."""

    def __init__(
        self, call: ir.Node, function: ir.Function, used_names: MutableSet[str], node_names: set[str]
    ) -> None:
        self.call = call
        self.opsets = function.opset_imports
        self.prefix = call.name or f"{call.op_type}"
        self.used_names, self.node_names = used_names, node_names
        self.attributes = {
            name: attribute
            for name, attribute in (*function.attributes.items(), *call.attributes.items())
            if attribute.is_ref() or attribute.value is not None
        }
        captures = function.meta.get(CAPTURES, ())
        formal = len(function.inputs) - len(captures)  # a call may leave out inputs, or end in empty ones
        given = (*(*call.inputs, *[None] * formal)[:formal], *captures)
        self.values: dict[ir.Value, ir.Value | None] = dict(zip(function.inputs, given, strict=True))

    def nodes(self, body: ir.Graph | ir.Function) -> list[ir.Node]:
        return [self.node(index, node) for index, node in enumerate(body)]

    def node(self, index: int, node: ir.Node) -> ir.Node:
        stem = node.name or f"{node.op_type}_{index}"
        if KEPT in node.metadata_props:
            self.node_names.discard(self.call.name or "")
        name = free_name(self.named(stem, KEPT in node.metadata_props), self.node_names)
        self.node_names.add(name)
        inputs = [None if value is None else self.values.get(value, value) for value in node.inputs]
        attributes = [self.attribute(attribute) for attribute in node.attributes.data.values()]
        version = node.version if node.version is not None else self.opsets.get(node.domain)
        return ir.Node(
            node.domain,
            node.op_type,
            inputs,
            [attribute for attribute in attributes if attribute is not None],
            overload=node.overload,
            outputs=[self.value(value, KEPT in node.metadata_props) for value in node.outputs],
            version=version,
            name=name,
            doc_string=node.doc_string,
            metadata_props={key: text for key, text in node.metadata_props.items() if key != KEPT},
        )

    def named(self, name: str, kept: bool) -> str:
        return name if kept else f"{self.prefix}/{name}"

    def is_constant(self, node: ir.Node, graph: ir.Graph) -> bool:
        """Make an initializer of a new Constant node; False if it is none, or of a kind that cannot be one."""
        value = node.attributes.get("value")
        if node.op_type != "Constant" or node.domain != "" or value is None or value.is_ref():
            return False
        (output,) = node.outputs
        tensor = value.as_tensor()
        name = free_name(str(output.name), graph.initializers)
        constant = ir.Value(name=name, shape=ir.Shape(tensor.shape.numpy()), const_value=tensor)
        constant.type = ir.TensorType(tensor.dtype)
        graph.initializers[name] = constant
        output.replace_all_uses_with(constant)
        for inner, clone in self.values.items():
            if clone is output:
                self.values[inner] = constant
        return True

    def value(self, value: ir.Value, kept: bool = False) -> ir.Value:
        """A new value of its own name; an output left out stays without a name."""
        name = ""
        if value.name:
            name = free_name(self.named(value.name, kept), self.used_names)
            self.used_names.add(name)
        clone = ir.Value(
            name=name,
            shape=value.shape,
            type=value.type,
            const_value=value.const_value,
            doc_string=value.doc_string,
        )
        self.values[value] = clone
        return clone

    def attribute(self, attribute: ir.Attr) -> ir.Attr | None:
        """The attribute for the clone; None if it refers to one that neither call nor function gives."""
        if attribute.is_ref():
            given = self.attributes.get(attribute.ref_attr_name or "")
            if given is None:
                return None
            if given.is_ref():
                return ir.RefAttr(attribute.name, given.ref_attr_name or "", given.type)
            return ir.Attr(attribute.name, given.type, given.value)
        if attribute.type == ir.AttributeType.GRAPH:
            return ir.AttrGraph(attribute.name, self.graph(attribute.as_graph()))
        if attribute.type == ir.AttributeType.GRAPHS:
            return ir.AttrGraphs(attribute.name, [self.graph(graph) for graph in attribute.as_graphs()])
        return attribute

    def graph(self, graph: ir.Graph) -> ir.Graph:
        inputs = [self.value(value) for value in graph.inputs]
        initializers = [
            self.values[value] if value in graph.inputs else self.value(value)
            for value in graph.initializers.values()
        ]
        nodes = self.nodes(graph)
        outputs = [self.values.get(value, value) for value in graph.outputs]
        return ir.Graph(
            inputs,
            [value for value in outputs if value is not None],
            nodes=nodes,
            initializers=[value for value in initializers if value is not None],
            name=graph.name,
            doc_string=graph.doc_string,
            opset_imports=dict(graph.opset_imports),
        )


def _connect_outputs(call: ir.Node, function: ir.Function, cloner: _Cloner) -> list[ir.Node]:
    """Let whoever read an output of the call read that of the clone, under the old name."""
    extra: list[ir.Node] = []
    taken: set[ir.Value] = set()
    for old, inner in zip(call.outputs, function.outputs, strict=False):
        if not old.name:
            continue
        new = cloner.values.get(inner)
        if new is None or new.producer() is None or new in taken or inner in function.inputs:
            identity = _identity(new, old, cloner)
            extra.append(identity)
            new = identity.outputs[0]
        taken.add(new)
        new.type = old.type or new.type
        new.shape = old.shape or new.shape
        name, old.name = old.name, None
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        new.name = name
    return extra


def _identity(source: ir.Value | None, old: ir.Value, cloner: _Cloner) -> ir.Node:
    name = free_name(f"{cloner.prefix}/Identity", cloner.node_names)
    cloner.node_names.add(name)
    return ir.Node("", "Identity", [source], name=name, version=cloner.opsets.get(""))


def _schema(domain: str, op_type: str, opset: int) -> tuple[Any, int, bool] | None:
    """(schema, version of the body, whether it is made from the input types)."""
    schema: Any  # onnx ships no types for its functions
    try:
        schema = onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        return None
    for versions, needs_types in (
        (schema.function_opset_versions, False),
        (schema.context_dependent_function_opset_versions, True),
    ):
        if versions:  # a newer one is as good: the operator is the same, and the body brings its version
            fitting = [version for version in versions if version <= opset]
            return schema, max(fitting) if fitting else min(versions), needs_types
    return None


def _settle_outputs(proto: onnx.FunctionProto, node: ir.Node) -> bool:
    """Deal with outputs that the body does not make; False if the node needs one, or there is no body.

    onnx leaves such outputs in the list (present_key of Attention without past_key). An output that this node
    does not use stands in for them, to keep the places of those after it.
    """
    made = {name for inner in proto.node for name in inner.output if name} | set(proto.input)
    used = [bool(value.name) for value in node.outputs] + [False] * len(proto.output)
    if not proto.node or any(use and name not in made for name, use in zip(proto.output, used, strict=False)):
        return False
    last = proto.node[-1].output[0]
    settled = [name if name in made else last for name in proto.output]
    del proto.output[:]
    proto.output.extend(settled)
    return True


def _add_defaults(proto: onnx.FunctionProto, schema: Any) -> None:
    given = {attribute.name for attribute in proto.attribute_proto}
    for name, attribute in schema.attributes.items():
        if name not in given and attribute.default_value.name:
            proto.attribute_proto.append(attribute.default_value)
            given.add(name)
    without = [name for name in proto.attribute if name not in given]
    del proto.attribute[:]
    proto.attribute.extend(without)
