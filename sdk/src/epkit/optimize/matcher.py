"""A formula as closures, made when a value is first matched against it: what :mod:`.pattern` runs.

Each closure tests one term and then calls the next with what has been found so far, so that all that comes after is
tried for every way of matching: a wrong order of a commutative operator is not the last word. What is found is noted
on a trail, and taken back along it where a way fails.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from ..backend.subgraph import constant_of
from ..kernels.attributes import attribute_value
from .formula import COMMUTATIVE, Assigned, Call, Choice, Literal, Name, Remembered, Result, Term
from .schema import default_of

_TOLERANCE = {2: 1e-3, 4: 1e-6, 8: 1e-6}
"""How far a constant of so many bytes may be from the number in the formula: exporters round."""


@dataclass
class Match:
    """What a pattern matched, or has matched so far.

    Attributes:
        root: the node that makes the pattern's first output.
        nodes: all matched nodes, by the calls of the formula.
        names: the graph's value for each name of the formula (of the alternative that fitted).
        attributes: what the pattern remembered: scalars, arrays, attributes.
        problem: why the first way that fitted was turned down.
    """

    root: ir.Node
    nodes: dict[Call, ir.Node] = field(default_factory=dict)
    names: dict[str, ir.Value] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None
    _given: dict[object, tuple[ir.Node, Sequence[ir.Value | None]]] = field(default_factory=dict, repr=False)
    _trail: list[tuple[dict[Any, Any], Hashable]] = field(default_factory=list, repr=False)

    def __getitem__(self, name: str) -> ir.Value:
        return self.names[name]

    def get(self, name: str) -> ir.Value | None:
        """The value of a name, or None if the alternative that fitted does not have it."""
        return self.names.get(name)

    def array(self, name: str) -> np.ndarray[Any, Any] | None:
        """The constant that a name stands for, or None."""
        return constant_of(self.names.get(name))

    def note(self, table: dict[Any, Any], key: Hashable, item: object) -> None:
        """Put an item into one of the tables."""
        table[key] = item
        self._trail.append((table, key))

    def mark(self) -> int:
        """How far the trail goes, for :meth:`take_back`."""
        return len(self._trail)

    def take_back(self, mark: int) -> None:
        """Forget what was noted since the trail went so far."""
        trail = self._trail
        while len(trail) > mark:
            table, key = trail.pop()
            del table[key]

    def give(self, call: object, node: ir.Node, inputs: Sequence[ir.Value | None]) -> None:
        """Keep a node's inputs, in the order that is tried, for the tests of a call's inputs."""
        self._given[call] = node, inputs

    def given(self, call: object) -> tuple[ir.Node, Sequence[ir.Value | None]]:
        """What :meth:`give` kept."""
        return self._given[call]


Then: TypeAlias = Callable[[Match], bool]
Test: TypeAlias = Callable[["ir.Value | None", "ir.Node | None", Match], bool]
"""Takes a value and the node that reads it; True if the term stands for it, and all that follows holds too."""


def matcher(term: Term, then: Then) -> Test:
    """The test of a term."""
    if isinstance(term, Assigned):
        return _assigned(term, then)
    if isinstance(term, Choice):
        return _choice(term, then)
    if isinstance(term, Result):
        return _result(term, then)
    return lambda value, reader, match: _fits(term, value, reader, match) and then(match)


def _assigned(term: Assigned, then: Then) -> Test:
    inner, name = matcher(term.term, then), term.name

    def test(value: ir.Value | None, reader: ir.Node | None, match: Match) -> bool:
        known = match.names.get(name)
        if known is not None:
            return known is value and then(match)
        if value is None:
            return False
        match.note(match.names, name, value)
        return inner(value, reader, match)

    return test


def _choice(term: Choice, then: Then) -> Test:
    options = [matcher(each, then) for each in term.terms]

    def test(value: ir.Value | None, reader: ir.Node | None, match: Match) -> bool:
        if value is None:
            return False
        mark = match.mark()
        for option in options:
            if option(value, reader, match):
                return True
            match.take_back(mark)
        return False

    return test


def _result(term: Result, then: Then) -> Test:
    call, index = term.call, term.index
    op_type, domain, count = call.op_type, call.domain, len(call.inputs)
    simple = [(i, each) for i, each in enumerate(call.inputs) if not _has_ways(each)]
    swaps = op_type in COMMUTATIVE and count == 2
    key = object()
    rest: Then | None = None  # made when it is first needed: most formulas are never looked at so far

    def test(value: ir.Value | None, reader: ir.Node | None, match: Match) -> bool:
        nonlocal rest
        if value is None or (node := value.producer()) is None:
            return False
        if node.op_type != op_type or node.domain != domain or value.index() != index:
            return False
        known = match.nodes.get(call)
        if known is not None:
            return known is node and then(match)
        inputs = node.inputs
        if len(inputs) != count and (len(inputs) < count or any(v is not None for v in inputs[count:])):
            return False
        if not _note_attributes(call, node, match):
            return False
        match.note(match.nodes, call, node)
        if rest is None:
            rest = _inputs(call, key, then)
        mark = match.mark()
        for order in (inputs, inputs[1::-1]) if swaps else (inputs,):
            for i, each in simple:
                if not _fits(each, order[i], node, match):
                    break
            else:
                match.give(key, node, order)
                if rest(match):
                    return True
            match.take_back(mark)
        return False

    return test


def _has_ways(term: Term) -> bool:
    """Whether a term may match in more than one way."""
    return isinstance(term, Assigned | Choice | Result)


def _inputs(call: Call, key: object, then: Then) -> Then:
    """The tests of a call's inputs that are results themselves, the first one first."""
    for index, term in reversed(list(enumerate(call.inputs))):
        if _has_ways(term):
            then = _input(index, key, matcher(term, then))
    return then


def _input(index: int, key: object, test: Test) -> Then:
    def run(match: Match) -> bool:
        node, inputs = match.given(key)
        return test(inputs[index], node, match)

    return run


def _fits(term: Term, value: ir.Value | None, reader: ir.Node | None, match: Match) -> bool:
    """Whether a name, a constant or None stands for a value."""
    if term is None or value is None:
        return term is None and value is None
    if isinstance(term, Name):
        return _note_name(term.name, value, match)
    if isinstance(term, Literal):
        return _is_close(value, term.value) and _adds_no_axes(value, reader)
    assert isinstance(term, Remembered)
    kept = _remembered(term, value, reader)
    if kept is None or not _note_attribute(term.name, kept, match):
        return False
    if term.name not in match.names:
        match.note(match.names, term.name, value)
    return True


def _note_name(name: str, value: ir.Value, match: Match) -> bool:
    known = match.names.get(name)
    if known is None:
        match.note(match.names, name, value)
    return known is None or known is value


def _note_attribute(name: str, kept: Any, match: Match) -> bool:
    if name in match.attributes:
        return _same(match.attributes[name], kept)
    match.note(match.attributes, name, kept)
    return True


def _note_attributes(call: Call, node: ir.Node, match: Match) -> bool:
    """Whether a node's attributes fit the call's; those that have names there are remembered."""
    held = node.attributes.data
    if not call.attributes and not held:
        return True
    for name, wanted in call.attributes.items():
        attribute = held.get(name)
        given = default_of(node, name) if attribute is None else attribute_value(attribute)
        if isinstance(wanted, Name):
            if not _note_attribute(wanted.name, given, match):
                return False
        elif not _same(given, wanted):
            return False
    return all(
        name in call.attributes or _same(attribute_value(attribute), default_of(node, name))
        for name, attribute in held.items()
    )


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
