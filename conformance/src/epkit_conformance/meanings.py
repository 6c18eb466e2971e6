"""What elementwise operators mean, in closed form on wide numbers: the oracle of the generated cases.

Independent of any kernel. Functions take wide arrays (long double or double) and keep their width; integers and
booleans come as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Unary:
    """A function of one tensor.

    Attributes:
        function: the meaning.
        low, high: where its inputs are drawn from.
        attributes: for the node, and for the function.
        nan: what it makes of not-a-number: "nan", "false", "true"; "" where the standard leaves it open.
    """

    function: Callable[..., Any]
    low: float = -4.0
    high: float = 4.0
    attributes: Mapping[str, Any] = field(default_factory=dict)
    nan: str = "nan"


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set of names."""
    return frozenset(text.split())


def erf(x: Any) -> Any:
    """The error function."""
    return np.vectorize(math.erf, otypes=[np.float64])(np.asarray(x, np.float64))


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), without overflow."""
    small = np.exp(-np.abs(x))
    return np.where(np.isnan(x), x, np.where(x >= 0, 1, small) / (1 + small))


def softplus(x: Any) -> Any:
    """log(1 + exp(x)), without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _elu(x: Any, alpha: float = 1.0) -> Any:
    return np.where(x < 0, np.float32(alpha) * np.expm1(np.minimum(x, 0)), x)


def _selu(x: Any, alpha: float, gamma: float) -> Any:
    return np.float32(gamma) * _elu(x, alpha)


def _gelu(x: Any, approximate: str) -> Any:
    if approximate == "none":
        return x * (1 + erf(x / math.sqrt(2))) / 2
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


UNARY: dict[str, Unary] = {
    "Abs": Unary(np.abs),
    "Acos": Unary(np.arccos, -1, 1),
    "Acosh": Unary(np.arccosh, 1, 6),
    "Asin": Unary(np.arcsin, -1, 1),
    "Asinh": Unary(np.arcsinh),
    "Atan": Unary(np.arctan),
    "Atanh": Unary(np.arctanh, -0.9, 0.9),
    "BitwiseNot": Unary(np.invert),
    "Ceil": Unary(np.ceil),
    "Celu": Unary(
        lambda x, alpha: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0) / alpha), x),
        attributes={"alpha": 0.75},
        nan="",
    ),
    "Cos": Unary(np.cos),
    "Cosh": Unary(np.cosh),
    "Elu": Unary(_elu, attributes={"alpha": 1.5}, nan=""),
    "Erf": Unary(erf),
    "Exp": Unary(np.exp, -5, 5),
    "Floor": Unary(np.floor),
    "Gelu": Unary(_gelu, attributes={"approximate": "tanh"}),
    "HardSigmoid": Unary(
        lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1),
        attributes={"alpha": 0.25, "beta": 0.5},
        nan="",
    ),
    "HardSwish": Unary(lambda x: x * np.clip(x / 6 + 0.5, 0, 1), nan=""),
    "Identity": Unary(lambda x: x),
    "IsInf": Unary(np.isinf, nan="false"),
    "IsNaN": Unary(np.isnan, nan="true"),
    "LeakyRelu": Unary(lambda x, alpha: np.where(x < 0, alpha * x, x), attributes={"alpha": 0.25}, nan=""),
    "Log": Unary(np.log, 0.05, 9),
    "Mish": Unary(lambda x: x * np.tanh(softplus(x))),
    "Neg": Unary(np.negative),
    "Not": Unary(np.logical_not),
    "Reciprocal": Unary(np.reciprocal, 0.25, 4),
    "Relu": Unary(lambda x: np.maximum(x, x.dtype.type(0))),
    "Round": Unary(np.rint),
    "Selu": Unary(_selu, attributes={"alpha": 1.5, "gamma": 1.25}, nan=""),
    "Shrink": Unary(
        lambda x, lambd, bias: np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0)),
        attributes={"lambd": 1.5, "bias": 0.5},
        nan="",
    ),
    "Sigmoid": Unary(sigmoid),
    "Sign": Unary(np.sign, nan=""),
    "Sin": Unary(np.sin),
    "Sinh": Unary(np.sinh),
    "Softplus": Unary(softplus),
    "Softsign": Unary(lambda x: x / (1 + np.abs(x))),
    "Sqrt": Unary(np.sqrt, 0, 9),
    "Swish": Unary(lambda x, alpha: x * sigmoid(alpha * x), attributes={"alpha": 1.5}),
    "Tan": Unary(np.tan, -1.5, 1.5),
    "Tanh": Unary(np.tanh),
    "ThresholdedRelu": Unary(lambda x, alpha: np.where(x > alpha, x, 0), attributes={"alpha": 0.5}, nan=""),
}


@dataclass(frozen=True)
class Binary:
    """A function of two tensors that broadcast.

    Attributes:
        positive: the second is drawn from positive numbers.
        nan: as for :class:`Unary`.
    """

    function: Callable[..., Any]
    positive: bool = False
    attributes: Mapping[str, Any] = field(default_factory=dict)
    nan: str = "nan"


def _div(x: Any, y: Any) -> Any:
    return x / y if x.dtype.kind == "f" else (np.trunc(x.astype(np.float64) / y)).astype(x.dtype)


def _mod(x: Any, y: Any, fmod: int = 0) -> Any:
    return np.fmod(x, y) if fmod else np.mod(x, y)


BINARY: dict[str, Binary] = {
    "Add": Binary(np.add),
    "And": Binary(np.logical_and),
    "BitShift": Binary(np.left_shift, positive=True, attributes={"direction": "LEFT"}),
    "BitwiseAnd": Binary(np.bitwise_and),
    "BitwiseOr": Binary(np.bitwise_or),
    "BitwiseXor": Binary(np.bitwise_xor),
    "Div": Binary(_div, positive=True),
    "Equal": Binary(np.equal, nan="false"),
    "Greater": Binary(np.greater, nan="false"),
    "GreaterOrEqual": Binary(np.greater_equal, nan="false"),
    "Less": Binary(np.less, nan="false"),
    "LessOrEqual": Binary(np.less_equal, nan="false"),
    "Max": Binary(np.maximum),
    "Mean": Binary(lambda x, y: (x + y) / 2),
    "Min": Binary(np.minimum),
    "Mod": Binary(_mod, positive=True, nan=""),
    "Mul": Binary(np.multiply),
    "Or": Binary(np.logical_or),
    "PRelu": Binary(lambda x, y: np.where(x < 0, x * y, x), nan=""),
    "Pow": Binary(np.power, positive=True, nan=""),
    "Sub": Binary(np.subtract),
    "Sum": Binary(np.add),
    "Xor": Binary(np.logical_xor),
}
