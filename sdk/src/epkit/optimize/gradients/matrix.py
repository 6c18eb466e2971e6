"""Products of matrices."""

from __future__ import annotations

import re

from .step import Grads, NoRule, Rule, Step
from .term import Term


def _matmul(s: Step) -> Grads:
    """``dA = G B^T``, ``dB = A^T G``, added up over batches that were broadcast."""
    a, b, g = s.x(0), s.x(1), s.g()
    row, column = s.rank(0) == 1, s.rank(1) == 1
    # A vector on the left is one row, one on the right one column.
    a2 = a.op("Unsqueeze", [0]) if row else a
    b2 = b.op("Unsqueeze", [1]) if column else b
    a_rank, b_rank = max(2, s.rank(0)), max(2, s.rank(1))
    if row and column:
        g = g.reshape([1, 1])
    elif row or column:
        g = g.op("Unsqueeze", [-2] if row else [-1])
    da = (g @ swapped(b2, b_rank)).sum_to(a2)
    db = (swapped(a2, a_rank) @ g).sum_to(b2)
    return [da.reshape(a.shape()) if row else da, db.reshape(b.shape()) if column else db]


def swapped(term: Term, rank: int) -> Term:
    """The last two axes exchanged."""
    return term.op("Transpose", perm=[*range(rank - 2), rank - 1, rank - 2])


def _gemm(s: Step) -> Grads:
    """``Y = alpha A' B' + beta C``, where A' and B' may be transposed."""
    alpha, beta = s.attr("alpha", 1.0), s.attr("beta", 1.0)
    a = swapped(s.x(0), 2) if s.attr("transA", 0) else s.x(0)
    b = swapped(s.x(1), 2) if s.attr("transB", 0) else s.x(1)
    g = s.g() if alpha == 1.0 else s.g() * alpha
    da, db = g @ swapped(b, 2), swapped(a, 2) @ g
    grads: list[Term | None] = [
        swapped(da, 2) if s.attr("transA", 0) else da,
        swapped(db, 2) if s.attr("transB", 0) else db,
    ]
    if s.has(2):
        grads.append((s.g() if beta == 1.0 else s.g() * beta).sum_to(s.x(2)))
    return grads


def _einsum(s: Step) -> Grads:
    """The gradient of an operand is the product of the others with that of the result, indices exchanged."""
    equation = re.sub(r"\s", "", s.attr("equation"))
    if "." in equation:
        raise NoRule(f"its equation {equation!r} has an ellipsis")
    left, arrow, result = equation.partition("->")
    operands = left.split(",")
    if not arrow:
        letters = left.replace(",", "")
        result = "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    return [_operand(s, index, operands, result) for index in range(len(operands))]


def _operand(s: Step, index: int, operands: list[str], result: str) -> Term:
    own = operands[index]
    if len(set(own)) != len(own):
        raise NoRule(f"its equation takes the diagonal of operand {index}: {own!r}")
    others = [i for i in range(len(operands)) if i != index]
    known = "".join([result, *(operands[i] for i in others)])
    kept = "".join(letter for letter in own if letter in known)
    equation = ",".join([result, *(operands[i] for i in others)]) + "->" + kept
    grad = s.g().op("Einsum", *(s.x(i) for i in others), equation=equation)
    # What the equation summed over alone, every element of it has the same gradient.
    missing = [axis for axis, letter in enumerate(own) if letter not in known]
    return (grad.op("Unsqueeze", missing) if missing else grad).op("Expand", s.x(index).shape())


RULES: dict[str, Rule] = {"MatMul": _matmul, "Gemm": _gemm, "Einsum": _einsum}
