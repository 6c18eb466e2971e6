"""Checks names and scopes on the skeleton: every value is defined once, and before anybody reads it.

Rules of the standard's IR.md, "Graphs" and "Names within a graph"; looser where onnxruntime is: a body may
reuse a name of the graph around it, and nodes may come in any order (check.py sorts them).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import onnx

from epkit.errors import InvalidModelError, Where
from epkit.model.limits import Limits


def check_structure(model: onnx.ModelProto, limits: Limits) -> None:
    """Raise InvalidModelError, naming node and value, for the first value defined twice or never."""
    _Scopes(limits).graph(model.graph, frozenset(), "the graph", 0)
    seen: set[tuple[str, str, str]] = set()
    for function in model.functions:
        key = function.domain, function.name, function.overload
        if key in seen:
            raise InvalidModelError(
                f"The function {function.domain}::{function.name} is defined twice.",
                remedy="remove one of the two, or give them different overloads",
            )
        seen.add(key)
        _Scopes(limits).body(
            f"function {function.domain}::{function.name}",
            inputs=function.input,
            constants=(),
            nodes=function.node,
            outputs=function.output,
            outer=frozenset(),
            depth=0,
        )


class _Scopes:
    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.nodes = 0

    def graph(self, graph: onnx.GraphProto, outer: frozenset[str], place: str, depth: int) -> None:
        self.body(
            place,
            inputs=[value.name for value in graph.input],
            constants=[tensor.name for tensor in graph.initializer],
            nodes=graph.node,
            outputs=[value.name for value in graph.output],
            outer=outer,
            depth=depth,
        )

    def body(
        self,
        place: str,
        *,
        inputs: Iterable[str],
        constants: Iterable[str],
        nodes: Iterable[onnx.NodeProto],
        outputs: Iterable[str],
        outer: frozenset[str],
        depth: int,
    ) -> None:
        self.limits.refuse_above("nesting", depth, "Depth of graphs within graphs")
        defined: dict[str, str | onnx.NodeProto] = {}
        for name in inputs:
            _define(defined, name, f"input of {place}", "")
        for name in constants:
            if name not in defined:  # an initializer may give the default of a body's input
                _define(defined, name, f"initializer of {place}", "")
        for node in nodes:
            self.nodes += 1
            for name in node.output[:]:
                if name in defined:
                    _define(defined, name, f"output of node {node.name}", node.name)
                elif name:
                    defined[name] = node
        self.limits.refuse_above("nodes", self.nodes, "Number of nodes")
        visible = outer | defined.keys()
        known = visible | {""}
        for node in nodes:
            if not known.issuperset(node.input[:]):
                raise _undefined_input(node, visible)
            if node.attribute:
                self._attributes(node, visible, depth)
        for name in outputs:
            if name not in defined:
                raise _undefined_output(name, place, name in outer, visible)

    def _attributes(self, node: onnx.NodeProto, visible: frozenset[str], depth: int) -> None:
        names = [attribute.name for attribute in node.attribute]
        if len(set(names)) != len(names):
            raise InvalidModelError(
                f"Node {node.name!r} ({node.op_type}) has an attribute twice: {', '.join(names)}.",
                where=Where(node=node.name),
                remedy="export the model anew",
            )
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                self.graph(graph, visible, f"{attribute.name} of node {node.name}", depth + 1)


def _define(defined: dict[str, str | onnx.NodeProto], name: str, role: str, node: str) -> None:
    if not name:
        raise InvalidModelError(f"An {role} has no name.", remedy="export the model anew")
    if name in defined:
        first = defined[name]
        first = first if isinstance(first, str) else f"output of node {first.name}"
        raise InvalidModelError(
            f"The value {name!r} is defined twice: as {first} and as {role}.",
            where=Where(node=node, value=name),
            remedy="in ONNX each value has one definition: rename one of the two",
        )
    defined[name] = role


def _undefined_input(node: onnx.NodeProto, visible: frozenset[str]) -> InvalidModelError:
    name = next(name for name in node.input if name and name not in visible)
    return InvalidModelError(
        f"Nothing produces the value {name!r}, which node {node.name!r} ({node.op_type}) reads."
        + _closest(name, visible),
        where=Where(node=node.name, value=name),
        remedy="make the value an input of the graph, or export the model anew",
    )


def _undefined_output(name: str, place: str, outside: bool, visible: Iterable[str]) -> InvalidModelError:
    if outside:
        return InvalidModelError(
            f"The value {name!r} is an output of {place}, but is defined outside of it.",
            where=Where(value=name),
            remedy="pass it through an Identity node inside",
        )
    return InvalidModelError(
        f"Nothing produces the value {name!r}, which is an output of {place}." + _closest(name, visible),
        where=Where(value=name),
        remedy="remove the output, or export the model anew",
    )


def _closest(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names)[:5000], n=3)
    return f" Close names: {', '.join(map(repr, close))}." if close else ""
