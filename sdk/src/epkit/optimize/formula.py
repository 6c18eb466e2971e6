"""Formulas as terms: what :mod:`.pattern` matches. The language is described there."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any

import numpy as np

DOMAINS = {"ms": "com.microsoft", "epkit": "epkit"}
COMMUTATIVE = frozenset({"Add", "Mul", "Max", "Min", "And", "Or", "Equal"})
_OPERATORS = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul", ast.Div: "Div", ast.Pow: "Pow"}


@dataclass(frozen=True)
class Name:
    """Any value; the same value each time."""

    name: str


@dataclass(frozen=True, eq=False)
class Literal:
    """A constant equal to an array."""

    value: np.ndarray[Any, Any]


@dataclass(frozen=True)
class Remembered:
    """A constant that the match remembers under a name."""

    name: str
    is_scalar: bool


@dataclass(frozen=True, eq=False)
class Call:
    """An operator applied to terms. An attribute is a literal, or the Name under which to remember it (as None,
    if it is absent and has no default).

    Of a shared one, others may read the result too.
    """

    domain: str
    op_type: str
    inputs: tuple[Term, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    is_shared: bool = False


@dataclass(frozen=True, eq=False)
class Result:
    """One output of a call."""

    call: Call
    index: int = 0


@dataclass(frozen=True, eq=False)
class Assigned:
    """A term that has a name."""

    name: str
    term: Term


@dataclass(frozen=True, eq=False)
class Choice:
    """The first of the terms that fits."""

    terms: tuple[Term, ...]


Term = Name | Literal | Remembered | Result | Assigned | Choice | None


def parse(formula: str) -> dict[str, Term]:
    """The term of each name that a formula assigns.

    Raises:
        ValueError: for anything that the language does not have.
    """
    lines = (line.strip() for line in formula.strip().splitlines())
    parser = _Parser()
    for statement in ast.parse("\n".join(line for line in lines if line)).body:
        parser.assign(statement)
    return parser.terms


class _Parser:
    def __init__(self) -> None:
        self.terms: dict[str, Term] = {}
        self.shared = 0

    def assign(self, statement: ast.stmt) -> None:
        if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
            raise ValueError(f"a formula consists of assignments, and this is none: {ast.unparse(statement)}")
        target, term = statement.targets[0], self.term(statement.value)
        if isinstance(target, ast.Name):
            self.terms[target.id] = Assigned(target.id, term)
        elif isinstance(target, ast.Tuple) and isinstance(term, Result):
            for index, each in enumerate(target.elts):
                name = ast.unparse(each)
                self.terms[name] = Assigned(name, Result(term.call, index))
        else:
            raise ValueError(f"nothing of that kind can be assigned: {ast.unparse(statement)}")

    def term(self, node: ast.expr) -> Term:
        if isinstance(node, ast.Name):
            return self.terms.get(node.id) or Name(node.id)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            both = (self.term(node.left), self.term(node.right))
            return Result(Call("", _OPERATORS[type(node.op)], both, {}, bool(self.shared)))
        if isinstance(node, ast.Call):
            return self.call(node)
        if isinstance(node, ast.Constant) and node.value is None:
            return None
        return Literal(np.asarray(ast.literal_eval(node)))

    def call(self, node: ast.Call) -> Term:
        name = ast.unparse(node.func)
        if name in ("scalar", "array"):
            return Remembered(ast.unparse(node.args[0]), name == "scalar")
        if name == "shared":
            self.shared += 1
            (term,) = map(self.term, node.args)
            self.shared -= 1
            return term
        inputs = tuple(self.term(each) for each in node.args)
        if name == "Any":
            return Choice(inputs)
        prefix, _, op_type = name.rpartition(".")
        if prefix and prefix not in DOMAINS:
            raise ValueError(f"there is no domain {prefix!r} in formulas; there are {', '.join(DOMAINS)}")
        attributes = {str(each.arg): self.attribute(each.value) for each in node.keywords}
        return Result(Call(DOMAINS.get(prefix, ""), op_type, inputs, attributes, bool(self.shared)))

    def attribute(self, node: ast.expr) -> Any:
        return Name(node.id) if isinstance(node, ast.Name) else ast.literal_eval(node)
