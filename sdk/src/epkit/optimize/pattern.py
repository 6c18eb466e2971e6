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

import onnx_ir as ir

from .formula import Assigned, Call, Choice, Result, Term, parse
from .matcher import Match, matcher
from .screen import screen

__all__ = ["Match", "Pattern"]

Operator = tuple[str, str]
"""Domain and name."""


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
        self._test = matcher(self._root, self._accept)

    def match(self, node: ir.Node) -> Match | str | None:
        """The match rooted at a node; a reason where only use of its values elsewhere forbids it; or None."""
        if not self._screen(node.outputs[0]):
            return None
        match = Match(node)
        return match if self._test(node.outputs[0], None, match) else match.problem

    def _accept(self, match: Match) -> bool:
        problem = self._escapes(match)
        match.problem = match.problem or problem
        return problem is None

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
