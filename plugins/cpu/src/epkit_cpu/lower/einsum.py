"""Einsum of two operands that is a batched product, and of one that is a transposition."""

from __future__ import annotations

import re

from .step import Lowering, Step, View, counted, longs

LETTERS = re.compile(r"[A-Za-z]+")
MOST_RANK = 16


def einsum(view: View) -> Step | None:
    """Each label once in a term; those of one operand alone are in the result."""
    left, arrow, result = str(view.attributes.get("equation", "")).replace(" ", "").partition("->")
    terms = left.split(",")
    known = arrow and all(LETTERS.fullmatch(term) for term in (*terms, result))
    if not known or set(view.types()) != {"float32"} or len(terms) != len(view.inputs):
        return None
    if any(len(set(term)) != len(term) or len(term) > MOST_RANK for term in (*terms, result)):
        return None
    if any(view.rank(index) != len(term) for index, term in enumerate(terms)):
        return None
    if len(terms) == 1:
        same = sorted(left) == sorted(result)
        return view.step("transpose", counted([left.index(c) for c in result])) if same else None
    return _product(view, terms[0], terms[1], result) if len(terms) == 2 else None


def _product(view: View, a: str, b: str, result: str) -> Step | None:
    """EinsumAttributes in ops/einsum.cpp."""
    batch = [c for c in a if c in b and c in result]
    rows, columns = [c for c in a if c not in b], [c for c in b if c not in a]
    inner = [c for c in a if c in b and c not in result]
    made = [*batch, *rows, *columns]
    if sorted(made) != sorted(result):
        return None
    places = [a.index(c) for c in (*batch, *rows, *inner)] + [b.index(c) for c in (*batch, *columns, *inner)]
    places += [made.index(c) for c in result]
    counts = (len(batch), len(rows), len(columns), len(inner))
    return view.step("einsum", longs(*counts, *places, *[0] * (3 * MOST_RANK - len(places))))


EINSUM: dict[tuple[str, str], Lowering] = {("", "Einsum"): einsum}
