"""Looks at a place in a graph before anything is matched there: most are no match, and their operators tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from .formula import COMMUTATIVE, Assigned, Call, Choice, Name, Result, Term

Test = Callable[["ir.Value | None"], bool]


def screen(term: Term) -> Test:
    """A test that fails for values of which the operators before them tell that the term does not stand for them."""
    return _screen(term, {})


def _screen(term: Term, known: dict[int, Test]) -> Test:
    if id(term) not in known:
        known[id(term)] = _make_test(term, known)
    return known[id(term)]


def _make_test(term: Term, known: dict[int, Test]) -> Test:
    if isinstance(term, Assigned):
        return _screen(term.term, known)
    if isinstance(term, Choice):
        return _any_of([_screen(each, known) for each in term.terms])
    if isinstance(term, Result):
        return _test_of_call(term.call, known)
    if isinstance(term, Name):
        return lambda value: True
    if term is None:
        return lambda value: value is None
    return lambda value: value is not None and value.producer() is None  # a constant


def _any_of(tests: Sequence[Test]) -> Test:
    def test(value: ir.Value | None) -> bool:
        for each in tests:  # noqa: SIM110 - a loop takes half the time of any()
            if each(value):
                return True
        return False

    return test


def _test_of_call(call: Call, known: dict[int, Test]) -> Test:
    domain, op_type, count = call.domain, call.op_type, len(call.inputs)
    places = [(i, _screen(term, known)) for i, term in enumerate(call.inputs) if not isinstance(term, Name)]
    orders = [places]
    if op_type in COMMUTATIVE and count == 2 and places:
        orders.append([(1 - i, test) for i, test in places])

    def test(value: ir.Value | None) -> bool:
        node = None if value is None else value.producer()
        if node is None or node.op_type != op_type or node.domain != domain:
            return False
        inputs = node.inputs
        if len(inputs) < count:
            return False
        for order in orders:
            for place, each in order:
                if not each(inputs[place]):
                    break
            else:
                return True
        return False

    return test
