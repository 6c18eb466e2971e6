"""Patterns: a piece of graph, written as the formula that it computes.

    Pattern(("x",), ("y",), "y = x * Sigmoid(x * scalar(alpha))")

A formula is a few Python assignments. A call is an operator of the standard, ``ms.Gelu(x)`` one of
com.microsoft; ``+ - * /`` and ``**`` are Add, Sub, Mul, Div and Pow. A name stands for a value, the same each
time; ``None`` for an input left out. Numbers and lists of numbers stand for constants; ``scalar(alpha)`` and
``array(axes)`` for constants that the match remembers. Keywords are attributes: a literal must be equal, a
name remembers what is there, or None; attributes not mentioned must have their defaults.
Add, Mul and their like match in either order. ``Any(f, g)`` is the first of f and g that fits.
Values made inside must be read inside only, except those that the pattern gives out, and what is made in
``shared(f)``: that stays in the graph for its other readers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from ..backend.subgraph import constant_of
from ..kernels.attributes import attribute_value
from .formula import COMMUTATIVE, Assigned, Call, Choice, Literal, Name, Remembered, Result, Term, parse
from .schema import default_of
from .screen import screen

Operator = tuple[str, str]
"""Domain and name."""

_TOLERANCE = {2: 1e-3, 4: 1e-6, 8: 1e-6}
"""How far a constant of so many bytes may be from the number in the formula: exporters round."""


@dataclass
class Match:
    """What a pattern matched.

    Attributes:
        root: the node that makes the pattern's first output.
        nodes: all matched nodes, by the calls of the formula.
        names: the graph's value for each name of the formula (of the alternative that fitted).
        attributes: what the pattern remembered: scalars, arrays, attributes.
    """

    root: ir.Node
    nodes: dict[Call, ir.Node] = field(default_factory=dict)
    names: dict[str, ir.Value] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> ir.Value:
        return self.names[name]

    def get(self, name: str) -> ir.Value | None:
        """The value of a name, or None if the alternative that fitted does not have it."""
        return self.names.get(name)

    def array(self, name: str) -> np.ndarray[Any, Any] | None:
        """The constant that a name stands for, or None."""
        return constant_of(self.names.get(name))


class Pattern:
    """One spelling of an operator: the names that go in and come out, and the formula.

    Args:
        inputs, outputs: names of the formula, in the operator's own order; those that the formula does not
            have are inputs left out, and outputs not made.
        formula: see the top of this file.

    Attributes:
        roots: the operators at whose nodes a match may begin; operators: all in the formula.
        required: the operators that no match can do without.
    """

    def __init__(self, inputs: Sequence[str], outputs: Sequence[str], formula: str) -> None:
        self.inputs, self.outputs, self.formula = tuple(inputs), tuple(outputs), formula
        terms = parse(formula)
        self._root = next(terms[name] for name in self.outputs if name in terms)
        self.roots = frozenset((call.domain, call.op_type) for call in _first_calls(self._root))
        self.operators = frozenset((c.domain, c.op_type) for term in terms.values() for c in _calls(term))
        self.required = _required(self._root)
        self._screen = screen(self._root)

    def match(self, node: ir.Node) -> Match | str | None:
        """The match rooted at a node; a reason where only use of its values elsewhere forbids it; or None."""
        if not self._screen(node.outputs[0]):
            return None
        problem: str | None = None
        for match in _value(self._root, node.outputs[0], Match(node)):
            found = self._escapes(match)
            if found is None:
                return match
            problem = problem or found
        return problem

    def _escapes(self, match: Match) -> str | None:
        """Why the match does not keep its values to itself, or None."""
        outputs = {match.names[name] for name in self.outputs if name in match.names}
        nodes = set(match.nodes.values())
        for call, node in match.nodes.items():
            if node.graph is not match.root.graph:
                return f"{node.name} is in an outer graph"
            if call.is_shared:
                continue
            for value in node.outputs:
                if value in outputs:
                    continue
                if value.is_graph_output():
                    return f"{value.name} is a result of the graph"
                for use in value.uses():
                    if use.node not in nodes:
                        return f"{value.name} is read by {use.node.name} too"
        return None


def _first_calls(term: Term) -> Iterator[Call]:
    if isinstance(term, Assigned):
        yield from _first_calls(term.term)
    elif isinstance(term, Choice):
        for each in term.terms:
            yield from _first_calls(each)
    elif isinstance(term, Result):
        yield term.call


def _calls(term: Term) -> Iterator[Call]:
    for call in _first_calls(term):
        yield call
        for each in call.inputs:
            yield from _calls(each)


def _required(term: Term) -> frozenset[Operator]:
    """The operators that every match of a term has."""
    if isinstance(term, Assigned):
        return _required(term.term)
    if isinstance(term, Choice):
        return frozenset.intersection(*map(_required, term.terms))
    if isinstance(term, Result):
        return frozenset({(term.call.domain, term.call.op_type)}).union(*map(_required, term.call.inputs))
    return frozenset()


# Matching yields every way, so that a wrong order of a commutative operator is not the last word. The ways are told
# in one Match: what a way added is taken back before the next.


def _value(
    term: Term, value: ir.Value | None, match: Match, reader: ir.Node | None = None
) -> Iterator[Match]:
    if term is None or value is None:
        if term is None and value is None:
            yield match
    elif isinstance(term, Name):
        yield from _named(term.name, value, match)
    elif isinstance(term, Assigned):
        known = match.names.get(term.name)
        if known is value:
            yield match
        elif known is None:
            for found in _value(term.term, value, match, reader):
                yield from _named(term.name, value, found)
    elif isinstance(term, Choice):
        for each in term.terms:
            yield from _value(each, value, match, reader)
    elif isinstance(term, Result):
        producer = value.producer()
        if producer is not None and value.index() == term.index:
            yield from _node(term.call, producer, match)
    elif isinstance(term, Literal):
        if _is_close(value, term.value) and _adds_no_axes(value, reader):
            yield match
    else:
        kept = _remembered(term, value, reader)
        if kept is not None and _same(match.attributes.get(term.name, kept), kept):
            added = _Added(match)
            added.attribute(term.name, kept)
            added.value(term.name, value)
            yield match
            added.take_back()


def _named(name: str, value: ir.Value, match: Match) -> Iterator[Match]:
    known = match.names.get(name)
    if known is value:
        yield match
    elif known is None:
        match.names[name] = value
        yield match
        del match.names[name]


class _Added:
    """What one way of matching added to a match."""

    def __init__(self, match: Match) -> None:
        self._match = match
        self._attributes: list[str] = []
        self._names: list[str] = []

    def attribute(self, name: str, kept: Any) -> None:
        if name not in self._match.attributes:
            self._match.attributes[name] = kept
            self._attributes.append(name)

    def value(self, name: str, value: ir.Value) -> None:
        if name not in self._match.names:
            self._match.names[name] = value
            self._names.append(name)

    def take_back(self) -> None:
        for name in self._attributes:
            del self._match.attributes[name]
        for name in self._names:
            del self._match.names[name]


def _node(call: Call, node: ir.Node, match: Match) -> Iterator[Match]:
    if node.op_type != call.op_type or node.domain != call.domain:
        return
    known = match.nodes.get(call)
    if known is not None:
        if known is node:
            yield match
        return
    count = len(call.inputs)
    if len(node.inputs) < count or any(value is not None for value in node.inputs[count:]):
        return
    attributes = _attributes(call, node)
    if attributes is None:
        return
    if not all(_same(match.attributes.get(name, kept), kept) for name, kept in attributes.items()):
        return
    added = _Added(match)
    for name, kept in attributes.items():
        added.attribute(name, kept)
    match.nodes[call] = node
    yield from _values(call.inputs, node.inputs[:count], match, node)
    if call.op_type in COMMUTATIVE and count == 2:
        yield from _values(call.inputs, node.inputs[1::-1], match, node)
    del match.nodes[call]
    added.take_back()


def _values(
    terms: Sequence[Term], values: Sequence[ir.Value | None], match: Match, reader: ir.Node
) -> Iterator[Match]:
    if not terms:
        yield match
        return
    for found in _value(terms[0], values[0], match, reader):
        yield from _values(terms[1:], values[1:], found, reader)


def _attributes(call: Call, node: ir.Node) -> dict[str, Any] | None:
    """What the call remembers of a node's attributes, or None if they do not fit."""
    held = node.attributes.data
    if not call.attributes and not held:
        return {}
    kept: dict[str, Any] = {}
    for name, wanted in call.attributes.items():
        attribute = held.get(name)
        given = default_of(node, name) if attribute is None else attribute_value(attribute)
        if isinstance(wanted, Name):
            kept[wanted.name] = given
        elif not _same(given, wanted):
            return None
    for name, attribute in held.items():
        if name not in call.attributes and not _same(attribute_value(attribute), default_of(node, name)):
            return None
    return kept


def _is_close(value: ir.Value, wanted: np.ndarray[Any, Any]) -> bool:
    found = constant_of(value)
    if found is None or found.size != wanted.size or found.dtype.kind in "OSUb":
        return False
    if found.dtype.kind in "iu":
        return bool(np.array_equal(found.ravel(), wanted.ravel()))
    tolerance = _TOLERANCE.get(found.dtype.itemsize, 1e-2)
    return bool(np.allclose(found.ravel().astype(np.float64), wanted.ravel(), rtol=tolerance, atol=0))


def _remembered(term: Remembered, value: ir.Value, reader: ir.Node | None) -> Any:
    found = constant_of(value)
    if found is None or found.dtype.kind in "OSU":
        return None
    if not term.is_scalar:
        return tuple(found.ravel().tolist())
    return found.ravel()[0].item() if found.size == 1 and _adds_no_axes(value, reader) else None


def _adds_no_axes(value: ir.Value, reader: ir.Node | None) -> bool:
    """Whether a constant of one element broadcasts without giving the result more axes than others have."""
    rank = 0 if value.shape is None else len(value.shape)
    if rank == 0 or reader is None or (value.const_value is not None and value.const_value.size != 1):
        return True
    others = [other.shape for other in reader.inputs if other is not None and other is not value]
    return not others or any(shape is not None and len(shape) >= rank for shape in others)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return list(a) == list(b)
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return bool(np.array_equal(a, b))
    return bool(a == b)
