"""Operators that work element by element, with broadcasting."""

from __future__ import annotations

import math
from collections.abc import Callable

from .step import Grads, NoRule, Rule, Step
from .term import Term

Formula = Callable[[Term, Term, Term], Term]


def _where(condition: Term, value: Term, other: float = 0.0) -> Term:
    return value.where(condition, other)


UNARY: dict[str, Formula] = {
    "Identity": lambda g, x, y: g,
    "Neg": lambda g, x, y: -g,
    "Abs": lambda g, x, y: g * x.op("Sign"),
    "Exp": lambda g, x, y: g * y,
    "Log": lambda g, x, y: g / x,
    "Sqrt": lambda g, x, y: g / (2.0 * y),
    "Reciprocal": lambda g, x, y: -g * y * y,
    "Sin": lambda g, x, y: g * x.op("Cos"),
    "Cos": lambda g, x, y: -g * x.op("Sin"),
    "Tan": lambda g, x, y: g * (1.0 + y * y),
    "Asin": lambda g, x, y: g / (1.0 - x * x).op("Sqrt"),
    "Acos": lambda g, x, y: -g / (1.0 - x * x).op("Sqrt"),
    "Atan": lambda g, x, y: g / (1.0 + x * x),
    "Sinh": lambda g, x, y: g * x.op("Cosh"),
    "Cosh": lambda g, x, y: g * x.op("Sinh"),
    "Asinh": lambda g, x, y: g / (x * x + 1.0).op("Sqrt"),
    "Acosh": lambda g, x, y: g / (x * x - 1.0).op("Sqrt"),
    "Atanh": lambda g, x, y: g / (1.0 - x * x),
    "Tanh": lambda g, x, y: g * (1.0 - y * y),
    "Sigmoid": lambda g, x, y: g * y * (1.0 - y),
    "Softplus": lambda g, x, y: g * x.op("Sigmoid"),
    "Softsign": lambda g, x, y: g / ((1.0 + x.op("Abs")) * (1.0 + x.op("Abs"))),
    "Relu": lambda g, x, y: _where(x > 0.0, g),
    "Erf": lambda g, x, y: g * (2.0 / math.sqrt(math.pi)) * (-(x * x)).op("Exp"),
    "Sign": lambda g, x, y: x.zeros(),
    "Floor": lambda g, x, y: x.zeros(),
    "Ceil": lambda g, x, y: x.zeros(),
    "Round": lambda g, x, y: x.zeros(),
    "Cast": lambda g, x, y: g.like(x),
    "CastLike": lambda g, x, y: g.like(x),
}
"""The gradient of x, of y = f(x) and g, the gradient of y."""


def _unary(formula: Formula) -> Rule:
    return lambda s: [formula(s.g(), s.x(), s.y())]


def _leaky(s: Step) -> Grads:
    """Relu's family: a slope below zero, one above."""
    alpha = s.attr("alpha", 0.01)
    return [s.g().where(s.x() > 0.0, s.g() * alpha)]


def _elu(s: Step) -> Grads:
    """``y = alpha (exp(x) - 1)`` below zero, where ``dy/dx = y + alpha``."""
    return [s.g().where(s.x() > 0.0, s.g() * (s.y() + s.attr("alpha", 1.0)))]


def _selu(s: Step) -> Grads:
    alpha, gamma = s.attr("alpha", 1.67326319217681884765625), s.attr("gamma", 1.05070102214813232421875)
    return [(s.g() * gamma).where(s.x() > 0.0, s.g() * (s.y() + alpha * gamma))]


def _celu(s: Step) -> Grads:
    """``y = alpha (exp(x / alpha) - 1)`` below zero, where ``dy/dx = y / alpha + 1``."""
    return [s.g().where(s.x() > 0.0, s.g() * (s.y() / s.attr("alpha", 1.0) + 1.0))]


def _thresholded_relu(s: Step) -> Grads:
    return [_where(s.x() > s.attr("alpha", 1.0), s.g())]


def _hard_sigmoid(s: Step) -> Grads:
    inside = (s.y() > 0.0).op("And", s.y() < 1.0)
    return [_where(inside, s.g() * s.attr("alpha", 0.2))]


def _prelu(s: Step) -> Grads:
    x, slope = s.x(), s.x(1)
    below = x < 0.0
    return [(s.g() * slope).where(below, s.g()), _where(below, s.g() * x).sum_to(slope)]


def _dropout(s: Step) -> Grads:
    """The mask says what was kept; outside of training everything was."""
    training = s.has(2) if s.opset >= 12 else s.opset < 7 and s.attr("is_test", 0) == 0
    if not training:
        return [s.g()]
    if len(s.node.outputs) < 2:
        s.node.resize_outputs(2)
    mask = s.node.outputs[1]
    if not mask.name:
        mask.name = s.build.fresh("mask")
    kept = s.y(1).like(s.x())
    ratio = s.x(1).like(s.x()) if s.has(1) else s.build.number(float(s.attr("ratio", 0.5)), s.x())
    if not s.has(2):
        return [s.g() * kept / (1.0 - ratio)]
    return [(s.g() * kept / (1.0 - ratio)).where(s.x(2), s.g())]


# ---- two and more inputs ----


def _add(s: Step) -> Grads:
    return [s.g().sum_to(s.x(0)), s.g().sum_to(s.x(1))]


def _sub(s: Step) -> Grads:
    return [s.g().sum_to(s.x(0)), (-s.g()).sum_to(s.x(1))]


def _mul(s: Step) -> Grads:
    a, b = s.x(0), s.x(1)
    return [(s.g() * b).sum_to(a), (s.g() * a).sum_to(b)]


def _div(s: Step) -> Grads:
    a, b = s.x(0), s.x(1)
    return [(s.g() / b).sum_to(a), (-s.g() * s.y() / b).sum_to(b)]


def _pow(s: Step) -> Grads:
    """``d x^p = p x^(p-1) dx + x^p log(x) dp``; the second only where x is positive."""
    x, exponent = s.x(0), s.x(1)
    p = exponent.like(x)
    # x ** 0 is 1 for every x: its derivative is 0, not 0 / x.
    dx = (s.g() * p * x.op("Pow", (p - 1.0).where(_not(p.equals(0.0)), 1.0))).sum_to(x)
    log = x.where(x > 0.0, 1.0).op("Log")
    return [dx, (s.g() * s.y() * log).sum_to(exponent).like(exponent)]


def _not(condition: Term) -> Term:
    return condition.op("Not")


def _sum(s: Step) -> Grads:
    return [s.g().sum_to(x) for x in s.inputs if x is not None]


def _mean(s: Step) -> Grads:
    share = s.g() / float(len(s.node.inputs))
    return [share.sum_to(x) for x in s.inputs if x is not None]


def _extremum(s: Step) -> Grads:
    """Max and Min: inputs that are equal share the gradient."""
    chosen = [x.equals(s.y()).like(s.g()) for x in s.inputs if x is not None]
    share = s.g() / sum(chosen[1:], start=chosen[0])
    return [(share * mask).sum_to(x) for mask, x in zip(chosen, s.inputs, strict=True) if x is not None]


def _where_rule(s: Step) -> Grads:
    condition = s.x(0)
    return [None, _where(condition, s.g()).sum_to(s.x(1)), _where(_not(condition), s.g()).sum_to(s.x(2))]


def _clip(s: Step) -> Grads:
    """Inside of the bounds the gradient is x's; outside it is the bound's."""
    x, g = s.x(), s.g()
    low, high = ((s.x(i) if s.has(i) else s.attr(name)) for i, name in ((1, "min"), (2, "max")))
    results: list[Term | None] = [g, None, None]
    if low is not None:
        below = x < low
        results[0] = _where(_not(below), g)
        results[1] = _where(below, g).sum_to(low) if isinstance(low, Term) else None
    if high is not None:
        above = x > high
        results[0] = _where(_not(above), results[0] or g)
        results[2] = _where(above, g).sum_to(high) if isinstance(high, Term) else None
    return results[: len(s.node.inputs)]


def _same_shapes(rule: Rule) -> Rule:
    """Before opset 7, broadcasting was an attribute, with rules of its own."""

    def checked(s: Step) -> Grads:
        if s.opset < 7 and s.attr("broadcast", 0):
            raise NoRule("it broadcasts as operators did before opset 7")
        return rule(s)

    return checked


RULES: dict[str, Rule] = {
    **{name: _unary(formula) for name, formula in UNARY.items()},
    "LeakyRelu": _leaky,
    "Elu": _elu,
    "Selu": _selu,
    "Celu": _celu,
    "ThresholdedRelu": _thresholded_relu,
    "HardSigmoid": _hard_sigmoid,
    "PRelu": _prelu,
    "Dropout": _dropout,
    "Add": _same_shapes(_add),
    "Sub": _same_shapes(_sub),
    "Mul": _same_shapes(_mul),
    "Div": _same_shapes(_div),
    "Pow": _same_shapes(_pow),
    "Sum": _sum,
    "Mean": _mean,
    "Max": _extremum,
    "Min": _extremum,
    "Where": _where_rule,
    "Clip": _clip,
}
