"""Products of matrices and tensors: MatMul, Gemm, Einsum, Det."""

from __future__ import annotations

import math
import re
from typing import Any

from ._precision import cast, is_float, quiet, wide
from .operator import op


@op("MatMul")
@quiet
def matmul(xp: Any, a: Any, b: Any) -> Any:
    """A B over the last two axes, the others broadcast; a vector is a row (A) or a column (B)."""
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"inputs A {a.shape} and B {b.shape} should have at least one axis")
    if a.shape[-1] != b.shape[max(b.ndim - 2, 0)]:
        raise ValueError(f"inputs A {a.shape} and B {b.shape} do not have the same inner size")
    left, right = wide(xp, a), wide(xp, b)
    if right.ndim == 2 and left.ndim > 2:
        # One large product instead of one per batch.
        rows = xp.reshape(left, (math.prod(left.shape[:-1]), left.shape[-1]))
        product = xp.reshape(xp.matmul(rows, right), (*left.shape[:-1], right.shape[1]))
    else:
        product = xp.matmul(left, right)
    return cast(xp, xp.asarray(product), a.dtype)


@quiet
def gemm(xp: Any, a: Any, b: Any, c: Any, alpha: float, beta: float, trans_a: int, trans_b: int) -> Any:
    """alpha * A' B' + beta * C, with C broadcast to the product and A', B' transposed where asked."""
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError(f"inputs A {a.shape} and B {b.shape} should be matrices")
    left, right = (wide(xp, m).T if t else wide(xp, m) for m, t in ((a, trans_a), (b, trans_b)))
    if left.shape[1] != right.shape[0]:
        raise ValueError(
            f"inputs A {a.shape} (transA={trans_a}) and B {b.shape} (transB={trans_b}) "
            "do not have the same inner size"
        )
    y = scaled(xp, xp.matmul(left, right), alpha)
    if c is not None and beta:
        y += xp.broadcast_to(scaled(xp, wide(xp, c), beta), y.shape)
    return cast(xp, y, a.dtype)


def scaled(xp: Any, x: Any, factor: float) -> Any:
    """``factor * x`` in the type of ``x``; integers are truncated toward zero."""
    if factor == 1:
        return x
    if is_float(xp, x.dtype) or factor == int(factor):
        return x * (factor if is_float(xp, x.dtype) else xp.asarray(int(factor), dtype=x.dtype))
    return xp.astype(xp.trunc(xp.astype(x, xp.float64) * factor), x.dtype)


@op("Gemm")
def gemm_1(
    xp: Any,
    a: Any,
    b: Any,
    c: Any,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    broadcast: int = 0,
    transA: int = 0,
    transB: int = 0,
) -> Any:
    """alpha * A' B' + beta * C; C has the shape of the result unless ``broadcast`` is set."""
    result = (a.shape[-1 if transA else 0], b.shape[0 if transB else -1])
    if not broadcast and tuple(c.shape) != result:
        raise ValueError(f"input C of shape {c.shape} should have shape {result} (attribute broadcast=0)")
    return gemm(xp, a, b, c, alpha, beta, transA, transB)


@op("Gemm", since=7)
def gemm_7(
    xp: Any,
    a: Any,
    b: Any,
    c: Any = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Any:
    """alpha * A' B' + beta * C, C broadcast to the result; optional since opset 11."""
    return gemm(xp, a, b, c, alpha, beta, transA, transB)


@op("Det", since=11)
@quiet
def det(xp: Any, x: Any) -> Any:
    """The determinant over the last two axes."""
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ValueError(f"input X of shape {x.shape} should hold square matrices")
    return cast(xp, xp.asarray(xp.linalg.det(wide(xp, x))), x.dtype)


@op("Einsum", since=12)
@quiet
def einsum(xp: Any, *inputs: Any, equation: str) -> Any:
    """The sum of products that the equation names, one pair of operands after the other."""
    terms, output = parse(equation, [x.ndim for x in inputs])
    sizes: dict[str, int] = {}
    for x, term in zip(inputs, terms, strict=True):
        for label, size in zip(term, x.shape, strict=True):
            known = sizes.setdefault(label, size)
            if known != size and 1 not in (known, size):
                raise ValueError(f"equation {equation!r}: label {label!r} has the sizes {known} and {size}")
            sizes[label] = size if known == 1 else known
    dtype = inputs[0].dtype
    operands = [diagonal(xp, wide(xp, x), term, sizes) for x, term in zip(inputs, terms, strict=True)]
    x, labels = operands[0]
    for position, (y, other) in enumerate(operands[1:], start=2):
        needed = set(output).union(*(term for _, term in operands[position:]))
        x, labels = contract(xp, x, labels, y, other, needed)
    x, labels = sum_out(xp, x, labels, set(output))
    x = xp.permute_dims(x, [labels.index(label) for label in output])
    # Of a single operand this may still be a view.
    return cast(xp, xp.asarray(x, copy=len(inputs) == 1 or None), dtype)


def parse(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """The labels of each operand and of the result; an ellipsis becomes private ones, aligned right."""
    text = equation.replace(" ", "")
    left, arrow, output = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise ValueError(f"equation {equation!r} names {len(terms)} operands, the node has {len(ranks)}")
    if not all(re.fullmatch(r"[A-Za-z]*(\.\.\.)?[A-Za-z]*", term) for term in (*terms, output)):
        raise ValueError(f"equation {equation!r} may hold letters, one ellipsis a term, commas and one arrow")
    dots = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    for term, rank, spare in zip(terms, ranks, dots, strict=True):
        if spare < 0 or (spare and "..." not in term):
            raise ValueError(f"equation {equation!r}: term {term!r} does not fit an operand of rank {rank}")
    most = max((spare for term, spare in zip(terms, dots, strict=True) if "..." in term), default=0)
    # One character of the private-use area per axis under the ellipsis.
    axes = "".join(chr(0xE000 + i) for i in range(most))
    expanded = [term.replace("...", axes[most - spare :]) for term, spare in zip(terms, dots, strict=True)]
    if not arrow:
        letters = "".join(terms).replace(".", "")
        output = axes + "".join(sorted(label for label in set(letters) if letters.count(label) == 1))
    output = output.replace("...", axes)
    if len(set(output)) != len(output) or not set(output) <= set("".join(expanded)):
        raise ValueError(f"equation {equation!r}: the result repeats a label or has one that no operand has")
    return expanded, output


def diagonal(xp: Any, x: Any, term: str, sizes: dict[str, int]) -> tuple[Any, str]:
    """An operand with each label once (the diagonal of repeated ones), without those to be broadcast."""
    for label in sorted(set(term)):
        while term.count(label) > 1:
            first, second = term.index(label), term.rindex(label)
            rest = [axis for axis in range(x.ndim) if axis not in (first, second)]
            x = xp.linalg.diagonal(xp.permute_dims(x, (*rest, first, second)))
            term = "".join(term[axis] for axis in rest) + label
    spread = [axis for axis, label in enumerate(term) if x.shape[axis] != sizes[label]]
    if spread:
        x = xp.squeeze(x, axis=tuple(spread))
        term = "".join(label for axis, label in enumerate(term) if axis not in spread)
    return x, term


def sum_out(xp: Any, x: Any, labels: str, needed: set[str]) -> tuple[Any, str]:
    """Sum over the labels that nothing else needs."""
    axes = tuple(axis for axis, label in enumerate(labels) if label not in needed)
    if not axes:
        return x, labels
    kept = "".join(label for label in labels if label in needed)
    return xp.asarray(xp.sum(x, axis=axes, dtype=x.dtype)), kept


def contract(xp: Any, x: Any, a: str, y: Any, b: str, needed: set[str]) -> tuple[Any, str]:
    """The product of two operands as one batched matrix product, summed over what is no longer needed."""
    x, a = sum_out(xp, x, a, needed | set(b))
    y, b = sum_out(xp, y, b, needed | set(a))
    batch = [label for label in a if label in b and label in needed]
    inner = [label for label in a if label in b and label not in needed]
    left, right = [label for label in a if label not in b], [label for label in b if label not in a]
    shape = dict(zip(a + b, x.shape + y.shape, strict=True))
    x = grouped_axes(xp, x, a, [batch, left, inner], shape)
    y = grouped_axes(xp, y, b, [batch, inner, right], shape)
    product = xp.matmul(x, y) if inner else x * y
    labels = batch + left + right
    return xp.reshape(product, [shape[label] for label in labels]), "".join(labels)


def grouped_axes(xp: Any, x: Any, labels: str, groups: list[list[str]], shape: dict[str, int]) -> Any:
    """The axes of ``x`` in the order of the groups, each group flattened to one axis."""
    x = xp.permute_dims(x, [labels.index(label) for group in groups for label in group])
    return xp.reshape(x, [math.prod(shape[label] for label in group) for group in groups])
