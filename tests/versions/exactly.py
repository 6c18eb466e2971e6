"""The elementwise functions of the standard in float64, and distances in units in the last place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Function = Callable[..., Array]

erf = np.vectorize(math.erf, otypes=[float])
erfc = np.vectorize(math.erfc, otypes=[float])
BIG = 3.4e38


def sigmoid(x: Array) -> Array:
    """Without overflow."""
    return np.where(x < 0, np.exp(np.minimum(x, 0)), 1) / (1 + np.exp(-np.abs(x)))


def softplus(x: Array) -> Array:
    """Without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def exponential_unit(x: Array) -> Array:
    """Elu with alpha 1."""
    return np.where(x < 0, np.expm1(np.minimum(x, 0)), x)


def mish(x: Array) -> Array:
    """x tanh(softplus(x)), without its cancellation."""
    e = np.exp(np.minimum(x, 100))
    return x * (e * (e + 2) / (e * (e + 2) + 2))


def gelu_tanh(x: Array) -> Array:
    """x / 2 (1 + tanh(u)) is x sigmoid(2 u)."""
    return x * sigmoid(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))


def shrink(x: Array) -> Array:
    """With bias 0.25 and the default threshold."""
    return np.where(x < -0.5, x + 0.25, np.where(x > 0.5, x - 0.25, 0))


def single(number: float) -> np.float64:
    """An attribute's value as the file has it, in float32."""
    return np.float64(np.float32(number))


@dataclass(frozen=True)
class Case:
    """One operator of one input.

    Attributes:
        exact: the function, of float64.
        low, high: the range; beyond it, results or what they are made of are no normal float32.
        terms: the size of what the standard's formula subtracts, which is what the result is as exact as.
        attributes: of the node.
        op: the operator, if it is not the name of the case.
    """

    exact: Function
    low: float = -BIG
    high: float = BIG
    terms: Function | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    op: str = ""


UNARY: Mapping[str, Case] = {
    "Abs": Case(np.abs),
    "Acos": Case(np.arccos, -1, 1),
    "Acosh": Case(np.arccosh, 1),
    "Asin": Case(np.arcsin, -1, 1),
    "Asinh": Case(np.arcsinh),
    "Atan": Case(np.arctan),
    "Atanh": Case(np.arctanh, -1, 1),
    "Ceil": Case(np.ceil),
    "Celu": Case(exponential_unit),
    "Celu of 2": Case(lambda x: 2 * exponential_unit(x / 2), attributes={"alpha": 2.0}, op="Celu"),
    "Cos": Case(np.cos),
    "Cosh": Case(np.cosh),
    "Elu": Case(exponential_unit),
    "Elu of 0.3": Case(
        lambda x: np.where(x < 0, single(0.3) * np.expm1(np.minimum(x, 0)), x),
        attributes={"alpha": 0.3},
        op="Elu",
    ),
    "Erf": Case(erf),
    "Exp": Case(np.exp),
    "Floor": Case(np.floor),
    "Gelu": Case(lambda x: x * erfc(-x / math.sqrt(2)) / 2, -13),
    "Gelu by tanh": Case(
        gelu_tanh, terms=lambda x: np.abs(x) / 2, attributes={"approximate": "tanh"}, op="Gelu"
    ),
    "HardSigmoid": Case(lambda x: np.clip(single(0.2) * x + 0.5, 0, 1), terms=lambda x: np.full_like(x, 0.5)),
    "HardSwish": Case(lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "LeakyRelu": Case(lambda x: np.where(x < 0, single(0.01) * x, x)),
    "Log": Case(np.log, 0),
    "Mish": Case(mish, -83),
    "Neg": Case(np.negative),
    "Reciprocal": Case(np.reciprocal),
    "Relu": Case(lambda x: np.maximum(x, 0)),
    "Round": Case(np.round),
    "Selu": Case(
        lambda x: 1.05070102214813232421875 * np.where(x < 0, 1.67326319217681884765625 * np.expm1(x), x)
    ),
    "Shrink": Case(shrink, attributes={"bias": 0.25}),
    "Sigmoid": Case(sigmoid),
    "Sign": Case(np.sign),
    "Sin": Case(np.sin),
    "Sinh": Case(np.sinh),
    "Softplus": Case(softplus),
    "Softsign": Case(lambda x: x / (1 + np.abs(x))),
    "Sqrt": Case(np.sqrt, 0),
    "Swish": Case(lambda x: x * sigmoid(x), -83),
    "Swish of 1.7": Case(lambda x: x * sigmoid(single(1.7) * x), -3, attributes={"alpha": 1.7}, op="Swish"),
    "Tan": Case(np.tan),
    "Tanh": Case(np.tanh),
    "ThresholdedRelu": Case(lambda x: np.where(x > 1, x, 0)),
}

BINARY: Mapping[str, Case] = {
    "Add": Case(np.add),
    "Clip": Case(lambda a, b: np.maximum(a, b)),  # b as the least, without a greatest
    "Div": Case(np.divide),
    "Max": Case(np.maximum),
    "Mean": Case(lambda a, b: (a + b) / 2),
    "Min": Case(np.minimum),
    "Mod": Case(np.fmod, attributes={"fmod": 1}),
    "Mul": Case(np.multiply),
    "PRelu": Case(lambda a, b: np.where(a < 0, a * b, a)),
    "Pow": Case(np.power),
    "Sub": Case(np.subtract),
    "Sum": Case(np.add),
    "SwiGLU": Case(lambda a, b: a * sigmoid(a) * b, -20),
}

DIGITS = {"float32": (23, -126), "float16": (10, -14), "bfloat16": (7, -126)}
"""Bits of the fraction, and the least exponent of a normal number."""


def units(found: Array, exact: Array, terms: Array | None = None) -> Array:
    """The distance in units in the last place of the exact result (or of ``terms``) in the type found."""
    digits, least = DIGITS[str(found.dtype)]
    _, exponent = np.frexp(exact if terms is None else np.maximum(np.abs(exact), terms))
    unit = np.ldexp(1.0, np.maximum(exponent - 1, least) - digits)
    distance = np.abs(found.astype(np.float64) - exact)
    return np.where(distance == 0, 0, distance / unit)
