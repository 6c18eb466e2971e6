"""Reductions, and Softmax, which is made of them."""

from __future__ import annotations

from collections.abc import Callable

from .step import Grads, Rule, Step
from .term import Term

Formula = Callable[[Term, Term, Term], Term]

REDUCTIONS: dict[str, Formula] = {
    "ReduceSum": lambda g, x, y: g,
    "ReduceMean": lambda g, x, y: g * (y.size().like(x) / x.size().like(x)),
    "ReduceL1": lambda g, x, y: g * x.op("Sign"),
    # The length of a zero vector has no direction to grow in.
    "ReduceL2": lambda g, x, y: g * x / y.where(y > 0.0, 1.0),
    "ReduceSumSquare": lambda g, x, y: g * (2.0 * x),
    "ReduceLogSum": lambda g, x, y: g * (-y).op("Exp"),
    "ReduceLogSumExp": lambda g, x, y: g * (x - y).op("Exp"),
}
"""The gradient of x; y, the result, and g, its gradient, have kept the axes reduced."""


def _reduction(formula: Formula) -> Rule:
    def rule(s: Step) -> Grads:
        x = s.x()
        grad = formula(_kept(s, s.g()), x, _kept(s, s.y()))
        return [grad.op("Expand", x.shape())]

    return rule


def _extremum(s: Step) -> Grads:
    """ReduceMax and ReduceMin: elements that are equal share the gradient."""
    x, y, g = s.x(), _kept(s, s.y()), _kept(s, s.g())
    chosen = x.equals(y).like(x)
    return [g * chosen / _same_reduction(s, chosen)]


def _same_reduction(s: Step, term: Term) -> Term:
    """The sum over the axes that a reduction names, these kept."""
    axes = _axes(s)
    if axes is None:
        return term.op("ReduceSum", keepdims=1, noop_with_empty_axes=s.attr("noop_with_empty_axes", 0))
    return term.op("ReduceSum", axes, keepdims=1)


def _axes(s: Step) -> Term | list[int] | None:
    """The axes, given as an input or (in older versions) an attribute; None if not given."""
    if s.has(1):
        return s.x(1)
    axes = s.attr("axes")
    return None if axes is None else list(axes)


def _kept(s: Step, reduced: Term) -> Term:
    """Something in the shape of the result, with the axes that it has lost, of length 1."""
    axes = _axes(s)
    if s.attr("keepdims", 1) or axes is None:
        return reduced
    return reduced.op("Unsqueeze", axes)


# ---- Softmax ----


def _softmax(s: Step) -> Grads:
    """``dx = (g - sum(g y)) y``."""
    y, g, axis = _rows(s)
    return [_as_before(s, (g - (g * y).op("ReduceSum", [axis], keepdims=1)) * y)]


def _log_softmax(s: Step) -> Grads:
    """``dx = g - exp(y) sum(g)``."""
    y, g, axis = _rows(s)
    return [_as_before(s, g - y.op("Exp") * g.op("ReduceSum", [axis], keepdims=1))]


def _rows(s: Step) -> tuple[Term, Term, int]:
    """(y, g, axis); before opset 13 everything from the axis on was one row of a matrix."""
    if s.opset >= 13:
        return s.y(), s.g(), s.attr("axis", -1)
    axis = s.attr("axis", 1)
    return s.y().op("Flatten", axis=axis), s.g().op("Flatten", axis=axis), 1


def _as_before(s: Step, grad: Term) -> Term:
    return grad if s.opset >= 13 else grad.reshape(s.x().shape())


RULES: dict[str, Rule] = {
    **{name: _reduction(formula) for name, formula in REDUCTIONS.items()},
    "ReduceMax": _extremum,
    "ReduceMin": _extremum,
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
}
