"""The chain rule over a graph: what lies between x and y, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import onnx_ir as ir

from ...backend.subgraph import describe_node, operator_name, opset_of
from ...errors import InvalidModelError, PlacementError, Where
from ...model.infer import infer
from ...model.inline import inline_call, schema_function
from ...model.walk import all_graphs, bodies, is_control_flow, reads
from . import RULES
from .meanings import MEANINGS
from .step import NoRule, Step
from .term import Builder, Term

T = TypeVar("T")
FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


def expand(model: ir.Model, node: ir.Node) -> None:
    """Replace a Gradient node whose inputs are the values given, then those named by xs and zs, then y.

    Raises:
        InvalidModelError: the values named depend on one another, or are not floating point.
        PlacementError: there is no rule for an operator on the way.
    """
    _Expansion(model, node).run()


def value_names(model: ir.Model) -> set[str]:
    """The names of all values in the main graph and in all bodies."""
    names: set[str] = set()
    for graph in all_graphs(model.graph):
        names.update(str(value.name) for value in (*graph.inputs, *graph.initializers.values()))
        names.update(value.name for node in graph for value in node.outputs if value.name)
    return names


class _Expansion:
    """The steps for one Gradient node. Its inputs are looked up anew each time: rewriting may replace them."""

    def __init__(self, model: ir.Model, gradient: ir.Node) -> None:
        self.model, self.gradient = model, gradient
        self.taken = value_names(model)
        self.count = (len(gradient.inputs) - 1) // 2
        self.n_xs = len(gradient.attributes["xs"].as_strings())

    def run(self) -> None:
        self._check()
        if self.given != self.named:
            self._compute_anew()
        while True in list(map(self._rewrite, self._path())):
            infer(self.model)
        self._write(self._way_back())

    @property
    def given(self) -> list[ir.Value]:
        return [value for value in self.gradient.inputs[: self.count] if value is not None]

    @property
    def named(self) -> list[ir.Value]:
        return [value for value in self.gradient.inputs[self.count : -1] if value is not None]

    @property
    def y(self) -> ir.Value:
        value = self.gradient.inputs[-1]
        assert value is not None
        return value

    def _check(self) -> None:
        named = set(self.named)
        for value in self.named:
            below = next((v for node in _before(value, set()) for v in reads(node) if v in named), None)
            if below is not None:
                raise self._invalid(
                    f"names both {below.name!r} and {value.name!r}, which is computed from it"
                )
        for value in self.named[: self.n_xs]:
            if value.dtype is not None and value.dtype not in FLOATS:
                raise self._invalid(f"names {value.name!r} in xs, which is {value.dtype} and has no gradient")

    def _invalid(self, problem: str) -> InvalidModelError:
        return InvalidModelError(
            f"Node {self.gradient.name!r} (Gradient) {problem}.",
            where=Where(stage="optimise", node=str(self.gradient.name)),
            remedy="xs and zs are the independent floating-point values that y is computed from",
        )

    def _builder(self, prefix: ir.Node, opset: int) -> Builder:
        return Builder(str(prefix.name), self.taken, opset)

    def _insert(self, build: Builder, before: ir.Node) -> None:
        assert isinstance(before.graph, ir.Graph)
        before.graph.insert_before(before, build.nodes)

    # ---- the way there ----

    def _path(self) -> list[ir.Node]:
        """The nodes through which y depends on xs, in order of computation."""
        depends = set(self.named[: self.n_xs])
        path = []
        for node in _before(self.y, set(self.named)):
            outputs = [value for value in node.outputs if value.name and _differentiable(value)]
            if outputs and not depends.isdisjoint(reads(node)):
                depends.update(outputs)
                path.append(node)
        return path

    def _compute_anew(self) -> None:
        """Copy what lies between the values named and y, for the values given; then differentiate the copy."""
        build = self._builder(self.gradient, opset=_default_opset(self.model))
        new = dict(zip(self.named, self.given, strict=True))
        for node in _before(self.y, set(self.named)):
            if new.keys().isdisjoint(reads(node)):
                continue
            if any(bodies(node)):
                raise self._no_rule(node, "its body cannot be computed anew for other values")
            copy = build.copy(
                node, [None if v is None else new.get(v, v) for v in node.inputs], len(node.outputs)
            )
            for old, value in zip(node.outputs, copy.outputs, strict=True):
                new[old], value.type = value, old.type
                value.name = value.name if old.name else ""
        self._insert(build, self.gradient)
        for index, value in enumerate([*self.given, new.get(self.y, self.y)]):
            self.gradient.replace_input_with(self.count + index, value)
        infer(self.model)

    def _rewrite(self, node: ir.Node) -> bool:
        """Replace a node without a rule by what it means; False if it has a rule."""
        if node.domain == "" and node.op_type in RULES:
            return False
        opset = opset_of(node, self.model.opset_imports)
        meaning = MEANINGS.get(node.op_type) if node.domain == "" else None
        if meaning is not None:
            build = self._builder(node, opset)
            terms = self._attempt(Step(node, opset, (), build), meaning)
            self._insert(build, node)
            for old, term in zip(node.outputs, terms, strict=False):
                _take_over(old, term.value)
            self._remove(node)
            return True
        function = self.model.functions.get(node.op_identifier())
        if function is None and not is_control_flow(node):
            function = schema_function(node, opset)
        if function is None:
            raise self._no_rule(node, "")
        assert isinstance(node.graph, ir.Graph)
        inline_call(node.graph, node, function, self.taken)
        return True

    # ---- the way back ----

    def _way_back(self) -> dict[ir.Value, Term]:
        """The gradients of xs, as far as y depends on them."""
        build = self._builder(self.gradient, _default_opset(self.model))
        self.build = build
        grads: dict[ir.Value, Term] = {self.y: build.term(self.y).filled(1.0)}
        for node in reversed(self._path()):
            found = [grads.get(value) for value in node.outputs]
            if all(grad is None for grad in found):
                continue
            step = Step(node, opset_of(node, self.model.opset_imports), found, build)
            results = self._attempt(step, RULES[node.op_type])
            for value, grad in zip(node.inputs, results, strict=False):
                if value is not None and grad is not None:
                    grads[value] = grads[value] + grad if value in grads else grad
        return grads

    def _write(self, grads: dict[ir.Value, Term]) -> None:
        build = self.build
        for old, x in zip(self.gradient.outputs, self.named, strict=False):
            if old.name:
                term = grads[x] if x in grads else build.term(x).zeros()
                new = term.op("Identity").value
                _take_over(old, new)
                new.type, new.shape = x.type, x.shape
        self._insert(build, self.gradient)
        self._remove(self.gradient)
        for node in reversed(build.nodes):
            if not any(value.uses() or value.is_graph_output() for value in node.outputs):
                self._remove(node)

    def _remove(self, node: ir.Node) -> None:
        assert isinstance(node.graph, ir.Graph)
        node.graph.remove(node, safe=True)

    def _attempt(self, step: Step, rule: Callable[[Step], Sequence[T]]) -> Sequence[T]:
        try:
            return rule(step)
        except NoRule as reason:
            raise self._no_rule(step.node, str(reason)) from None

    def _no_rule(self, node: ir.Node, reason: str) -> PlacementError:
        return PlacementError(
            f"Node {self.gradient.name!r} (Gradient) cannot differentiate {describe_node(node)}"
            + (f": {reason}" if reason else f": {operator_name(node)} has no derivative here"),
            where=Where(stage="optimise", node=str(node.name), value=str(self.y.name)),
            remedy="differentiate a part of the model without it, or write it in operators that have derivatives",
        )


def _before(value: ir.Value, cut: set[ir.Value]) -> list[ir.Node]:
    """All nodes that a value is computed by, in order of computation, back to the values of the cut."""
    order: dict[ir.Node, None] = {}
    first = None if value in cut else value.producer()
    path: dict[ir.Node, Iterator[ir.Node]] = {} if first is None else {first: _sources(first, cut)}
    while path:
        node = next(reversed(path))
        below = next((source for source in path[node] if source not in order), None)
        if below is None:
            del path[node]
            order[node] = None
        else:
            path[below] = _sources(below, cut)
    return list(order)


def _sources(node: ir.Node, cut: set[ir.Value]) -> Iterator[ir.Node]:
    producers = (value.producer() for value in reads(node) if value not in cut)
    return (producer for producer in producers if producer is not None)


def _differentiable(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype in FLOATS


def _default_opset(model: ir.Model) -> int:
    return model.opset_imports.get("", 1)


def _take_over(old: ir.Value, new: ir.Value) -> None:
    """Let whoever read ``old`` read ``new``, under the old name."""
    name, old.name = old.name, None
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    new.type, new.shape = old.type or new.type, old.shape or new.shape
    new.name = name
