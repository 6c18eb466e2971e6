"""Integers that a graph computes from shapes: what is known of each, without running anything.

An exporter that traces writes ``x.expand(b, h, n, s, d)`` as a dozen operators on the shape of x. Read as a whole they
say no more than ``[b, h, n, s, d]``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from ..backend.subgraph import constant_of
from .rule import input_of
from .shapes import Dim, fits_dim, same_dim, terms, times

UNKNOWN = ir.SymbolicDim(None)
"""A number of which nothing is known; it need not be a dimension, and may be negative."""

_MOST = 64
"""So many values are looked at for one: no graph, however made, takes long or runs deep."""

_LONGEST = 16
"""Vectors of more elements are no shapes."""

Elements = list[Dim]
Memo = dict[ir.Value, Elements | None]


def elements(value: ir.Value | None, memo: Memo | None = None) -> Elements | None:
    """The elements of an integer vector (or scalar, then one); None if not even their number is known."""
    if value is None or (value.shape is not None and len(value.shape) > 1):
        return None
    constant = constant_of(value)
    if constant is not None:
        is_shape = constant.dtype.kind in "iu" and constant.size <= _LONGEST
        return [int(each) for each in constant.ravel()] if is_shape else None
    memo = {} if memo is None else memo
    if value in memo or len(memo) >= _MOST:
        return memo.get(value)
    memo[value] = None
    node = value.producer()
    rule = _RULES.get(node.op_type) if node is not None and node.domain == "" else None
    found = None if rule is None or node is None else rule(node, memo)
    memo[value] = found if found is None or len(found) <= _LONGEST else None
    return memo[value]


def broadcast(one: Sequence[Dim], other: Sequence[Dim]) -> Elements:
    """The dimensions of two shapes against each other, as far as they follow."""
    rank = max(len(one), len(other))
    ones: Elements = [1] * rank
    left, right = ([*ones[len(dims) :], *dims] for dims in (one, other))
    return [_broadcast(a, b) for a, b in zip(left, right, strict=True)]


def _broadcast(a: Dim, b: Dim) -> Dim:
    for mine, its in ((a, b), (b, a)):
        if isinstance(mine, int) and mine > 1:
            return mine
        if mine == 1:
            return UNKNOWN if isinstance(its, int) and its < 0 else its
    if fits_dim(a, b):
        return b
    return a if fits_dim(b, a) else UNKNOWN


def _shape(node: ir.Node, memo: Memo) -> Elements | None:
    data = node.inputs[0]
    if data is None or data.shape is None:
        return None
    end = node.attributes["end"].as_int() if "end" in node.attributes else None
    return list(data.shape)[node.attributes.get_int("start", 0) : end]


def _gather(node: ir.Node, memo: Memo) -> Elements | None:
    data, places = elements(node.inputs[0], memo), elements(node.inputs[1], memo)
    if data is None or places is None:
        return None
    known = [place for place in places if isinstance(place, int) and -len(data) <= place < len(data)]
    return [data[place] for place in known] if len(known) == len(places) else None


def _slice(node: ir.Node, memo: Memo) -> Elements | None:
    data = elements(node.inputs[0], memo)
    bounds = [elements(input_of(node, place), memo) for place in (1, 2)]
    steps = elements(input_of(node, 4), memo) if input_of(node, 4) is not None else [1]
    start, end, step = (each[0] if each and len(each) == 1 else None for each in (*bounds, steps))
    if data is None or not (isinstance(start, int) and isinstance(end, int) and step == 1):
        return None
    return data[start:end]


def _concat(node: ir.Node, memo: Memo) -> Elements | None:
    parts = [elements(value, memo) for value in node.inputs]
    return None if None in parts else [each for part in parts for each in part or ()]


def _same(node: ir.Node, memo: Memo) -> Elements | None:
    return elements(node.inputs[0], memo)


def _cast(node: ir.Node, memo: Memo) -> Elements | None:
    return _same(node, memo) if node.attributes["to"].as_int() == ir.DataType.INT64 else None


def _pairs(node: ir.Node, memo: Memo, first: int = 0) -> list[tuple[Dim, Dim]] | None:
    """Two inputs against each other, one of them repeated where it has one element."""
    one, other = (elements(input_of(node, place), memo) for place in (first, first + 1))
    if one is None or other is None or (len(one) != len(other) and 1 not in (len(one), len(other))):
        return None
    length = len(one) if len(other) == 1 else len(other)
    return list(zip(*(each * length if len(each) == 1 else each for each in (one, other)), strict=True))


def _each(combined: Callable[[Dim, Dim], Dim]) -> Callable[[ir.Node, Memo], Elements | None]:
    def rule(node: ir.Node, memo: Memo) -> Elements | None:
        pairs = _pairs(node, memo)
        return None if pairs is None else [combined(a, b) for a, b in pairs]

    return rule


def _product(a: Dim, b: Dim) -> Dim:
    for number, dim in ((a, b), (b, a)):
        if isinstance(number, int):
            count, name = terms(dim)
            if number == 1 or (name is None and isinstance(dim, int)):
                return dim if number == 1 else number * count
            return times(number * count, name) if number > 0 and name is not None else UNKNOWN
    return UNKNOWN


def _sum(a: Dim, b: Dim) -> Dim:
    if b == 0:
        return a
    return a + b if isinstance(a, int) and isinstance(b, int) else UNKNOWN


def _quotient(a: Dim, b: Dim) -> Dim:
    """Of what divides evenly, or is known: of negative numbers a quotient is rounded otherwise."""
    if not isinstance(b, int) or b <= 0 or (isinstance(a, int) and a < 0):
        return a if b == 1 else UNKNOWN
    count, name = terms(a)
    if isinstance(a, int):
        return a // b
    return a if b == 1 else times(count // b, name) if name is not None and count % b == 0 else UNKNOWN


def _where(node: ir.Node, memo: Memo) -> Elements | None:
    """Only where what it asks is whether an element is some number, -1 as a rule."""
    asked, pairs = node.inputs[0], _pairs(node, memo, 1)
    question = None if asked is None else asked.producer()
    if question is None or question.op_type != "Equal" or pairs is None:
        return None
    sides = _pairs(question, memo)
    if sides is None or len(sides) != len(pairs):
        return None
    return [_chosen(_equal(*side), *pair) for side, pair in zip(sides, pairs, strict=True)]


def _chosen(answer: bool | None, yes: Dim, no: Dim) -> Dim:
    if answer is None:
        return yes if same_dim(yes, no) else UNKNOWN
    return yes if answer else no


def _equal(a: Dim, b: Dim) -> bool | None:
    """Whether two numbers are equal, if that is certain; what has a name is a dimension, and not negative."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    if same_dim(a, b):
        return True
    for number, dim in ((a, b), (b, a)):
        if isinstance(number, int) and number < 0 and not isinstance(dim, int) and dim.value is not None:
            return False
    return None


_RULES: dict[str, Callable[[ir.Node, Memo], Elements | None]] = {
    "Shape": _shape,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Cast": _cast,
    "Where": _where,
    "Mul": _each(_product),
    "Add": _each(_sum),
    "Div": _each(_quotient),
    **dict.fromkeys(("Identity", "Reshape", "Squeeze", "Unsqueeze"), _same),
}
FROM_SHAPES = frozenset(_RULES)
"""Operators that are understood."""
