"""Sums of products in Einstein's notation that are products of matrices."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from .make_gemm import FLOATS
from .rule import Scope, Verdict, rule
from .shapes import dims_text


class _Letters(NamedTuple):
    """The axes of ``left,right->out``: of all three, of two of them, and those that are summed."""

    left: str
    right: str
    out: str
    batch: str
    rows: str
    columns: str
    summed: str


@rule("Einsum")
def einsum_as_product(node: ir.Node, scope: Scope) -> Verdict:
    """Einsum("bij,bkj->bik", x, y) = MatMul(x, yᵀ), and so for axes in another order.

    Several axes may be summed ("bshd,hde->bse") or be columns ("bsd,dhe->bshe"), where y has no batch: they are joined
    before, and split after. So what other rules know of products holds for Einsum too.
    """
    letters = _letters(node)
    if not isinstance(letters, _Letters):
        return letters
    x, y = node.inputs
    if x is None or y is None or x.dtype is None or x.dtype.name not in FLOATS:
        return False
    if x.shape is None or y.shape is None:
        return f"the shapes of {x.name} and {y.name} are unknown"
    several = max(map(len, (letters.columns, letters.summed))) > 1 or len(letters.rows) > 1
    if several and letters.batch:
        return f"{'/'.join(letters)}: several axes next to each other, and a batch"
    sizes = dict(zip(letters.right, y.shape, strict=True))
    if several and not all(isinstance(size, int) and size for size in sizes.values()):
        return f"{dims_text(y)} has axes of unknown size, or of none, that are to be joined"
    known = {letter: size for letter, size in sizes.items() if isinstance(size, int)}
    return scope.replace(node, _product(node, letters, known, scope))


def _letters(node: ir.Node) -> _Letters | bool | str:
    """The roles of the letters, or why that is no product of matrices."""
    equation = node.attributes["equation"].as_string().replace(" ", "")
    if "->" not in equation or equation.count(",") != 1 or "." in equation:
        return False
    operands, out = equation.split("->")
    left, right = operands.split(",")
    if any(len(set(text)) != len(text) for text in (left, right, out)):
        return f"{equation} has a letter twice"
    summed = "".join(letter for letter in left if letter in right and letter not in out)
    batch = "".join(letter for letter in out if letter in left and letter in right)
    rows = "".join(letter for letter in out if letter in left and letter not in right)
    columns = "".join(letter for letter in out if letter in right and letter not in left)
    if not (summed and rows and columns):
        return False
    if len(batch + rows + summed) != len(left) or len(batch + columns + summed) != len(right):
        return f"{equation} sums over an axis of one operand"
    return _Letters(left, right, out, batch, rows, columns, summed)


def _product(node: ir.Node, letters: _Letters, sizes: dict[str, int], scope: Scope) -> ir.Value:
    batch, rows, columns, summed = letters[3:]
    x = _turned(node, node.inputs[0], letters.left, batch + rows + summed, scope)
    y = _turned(node, node.inputs[1], letters.right, batch + summed + columns, scope)
    inner, outer = ([sizes.get(letter, 0) for letter in text] for text in (summed, columns))
    if len(summed) > 1:
        x = _reshaped(node, x, [0] * len(rows) + [prod(inner)], scope)
    if len(summed) > 1 or len(columns) > 1:
        y = _reshaped(node, y, [prod(inner), prod(outer)], scope)
    made = scope.make(node, "MatMul", [x, y], version=13)
    made.type = node.outputs[0].type
    if len(columns) > 1:
        made = _reshaped(node, made, [0] * len(rows) + outer, scope)
    return _turned(node, made, batch + rows + columns, letters.out, scope)


def _turned(node: ir.Node, value: ir.Value | None, have: str, want: str, scope: Scope) -> ir.Value:
    """A value whose axes are called ``have``, with the axes in the order of ``want``."""
    assert value is not None
    if have == want:
        return value
    perm = [have.index(letter) for letter in want]
    made = scope.make(node, "Transpose", [value], {"perm": perm}, version=13)
    made.type = value.type
    made.shape = None if value.shape is None else ir.Shape([value.shape[axis] for axis in perm])
    return made


def _reshaped(node: ir.Node, value: ir.Value, target: list[int], scope: Scope) -> ir.Value:
    shape = scope.constant(np.array(target, np.int64), f"{node.name}/shape")
    made = scope.make(node, "Reshape", [value, shape], version=13)
    made.type = value.type
    return made


RULES = (einsum_as_product,)
