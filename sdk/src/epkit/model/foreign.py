"""Nodes written against another version than the model imports, as the bodies of functions are when inlined.

A model in protobuf has one version for each domain. Inference would read such a node by the wrong rules, and
find wrong shapes; so for it, the node becomes a call of a function, which may import a version of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx_ir as ir

from epkit.model.schemas import Signature, signature
from epkit.model.walk import bodies

DOMAIN = "epkit.foreign"


def wrap_foreign(model: ir.Model, proto: onnx.ModelProto) -> None:
    """Wrap the foreign nodes of ``proto``, which is ``model`` as protobuf, node by node."""
    _Wrapper(model.graph.opset_imports, proto).graph(model.graph, proto.graph)


class _Wrapper:
    def __init__(self, imports: Mapping[str, int], model: onnx.ModelProto) -> None:
        self.imports, self.model = imports, model
        self.local = {(f.domain, f.name, f.overload) for f in model.functions}
        self.count = 0

    def graph(self, graph: ir.Graph, proto: onnx.GraphProto) -> None:
        for node, node_proto in zip(graph, proto.node, strict=True):
            inner = {a.name: a for a in node_proto.attribute}
            below = list(bodies(node))
            for name, body in below:
                stem, _, index = name.partition("[")
                self.graph(body, inner[stem].graphs[int(index[:-1])] if index else inner[stem].g)
            # What is inferred inside of a function is lost, and the bodies of nodes need it.
            if not below and self._is_foreign(node):
                self._wrap(node_proto, node.version or 1)

    def _is_foreign(self, node: ir.Node) -> bool:
        own, imported = node.version, self.imports.get(node.domain)
        if own is None or own == imported or node.op_identifier() in self.local:
            return False
        rules = signature(node.domain, node.op_type, own)
        if rules is None:
            return False
        other = signature(node.domain, node.op_type, imported) if imported is not None else None
        return other is None or not _reads_alike(node, rules, other)

    def _wrap(self, node: onnx.NodeProto, version: int) -> None:
        if not self.count:
            self.model.opset_import.add(domain=DOMAIN, version=1)
        self.count += 1
        function = self.model.functions.add(domain=DOMAIN, name=f"{node.op_type}_{self.count}")
        function.opset_import.add(domain=node.domain, version=version)
        inner = function.node.add()
        inner.CopyFrom(node)
        # A call names only what is there; places left out stay inside.
        for index, name in enumerate(inner.input):
            if name:
                inner.input[index] = f"i{index}"
                function.input.append(f"i{index}")
        for index, name in enumerate(inner.output):
            if name:
                inner.output[index] = f"o{index}"
                function.output.append(f"o{index}")
        inputs, outputs = ([name for name in names if name] for names in (node.input, node.output))
        node.Clear()
        node.op_type, node.domain = function.name, DOMAIN
        node.input.extend(inputs)
        node.output.extend(outputs)


def _reads_alike(node: ir.Node, one: Signature, other: Signature) -> bool:
    """Whether the node has the same inputs and attributes by two versions of its operator.

    Wrapping a node that has would only hide it, and the small constants that shapes depend on.
    """
    if one.since == other.since:
        return True
    count = max((i + 1 for i, value in enumerate(node.inputs) if value is not None), default=0)
    places = [formal.name for formal in one.inputs[:count]] == [
        formal.name for formal in other.inputs[:count]
    ]
    required = {name for name, (_, needed) in other.attributes.items() if needed}
    return (
        places
        and other.min_inputs <= count <= other.max_inputs
        and required <= node.attributes.keys() <= other.attributes.keys()
    )
