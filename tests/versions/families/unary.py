"""Operators that map each element."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..case import Case, cases_for
from ..data import floats, text, truths, whole

RANGE = {
    "Acos": (-1.0, 1.0),
    "Acosh": (1.0, 5.0),
    "Asin": (-1.0, 1.0),
    "Atanh": (-0.9, 0.9),
    "Log": (0.1, 5.0),
    "Reciprocal": (0.5, 4.0),
    "Sqrt": (0.0, 9.0),
    "Exp": (-5.0, 3.0),
}
"""Where the function is defined; [-4, 4] where that is everywhere."""


@cases_for(
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor"),
    *("HardSwish", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Sinh"),
    *("Softplus", "Softsign", "Sqrt", "Tan", "Tanh"),
)
def function(op: str, version: int) -> Iterator[Case]:
    low, high = RANGE.get(op, (-4.0, 4.0))
    yield Case([floats(2, 3, 4, low=low, high=high)])


SHAPED = {
    "Celu": ({"alpha": 0.7},),
    "Elu": ({"alpha": 1.7},),
    "Gelu": ({"approximate": "tanh"}, {"approximate": "none"}),
    "HardSigmoid": ({"alpha": 0.3, "beta": 0.4},),
    "LeakyRelu": ({"alpha": 0.2},),
    "Selu": ({"alpha": 1.5, "gamma": 1.2},),
    "Shrink": ({"lambd": 1.5, "bias": 0.5},),
    "Swish": ({"alpha": 1.3},),
    "ThresholdedRelu": ({"alpha": 0.6},),
}


@cases_for(*SHAPED)
def shaped(op: str, version: int) -> Iterator[Case]:
    """With the defaults (which changed for Selu), then with other parameters."""
    yield Case([floats(2, 3, low=-4, high=4)])
    for attributes in SHAPED[op]:
        yield Case([floats(3, 5, low=-4, high=4)], attributes)


@cases_for("Clip")
def clip(op: str, version: int) -> Iterator[Case]:
    x = floats(3, 4, low=-4, high=4)
    if version < 11:
        yield Case([x])
        yield Case([x], {"min": -1.5})
        yield Case([x], {"min": -1.5, "max": 2.0})
    else:
        low, high = np.float32(-1.5), np.float32(2.0)
        yield Case([x])
        yield Case([x, None, np.array(high)])
        yield Case([x, np.array(low), np.array(high)])


@cases_for("IsInf")
def is_inf(op: str, version: int) -> Iterator[Case]:
    x = np.array([[1, np.inf, -np.inf], [np.nan, 0, 3]], np.float32)
    yield Case([x])
    yield Case([x], {"detect_negative": 0})
    yield Case([x], {"detect_positive": 0})


@cases_for("IsNaN")
def is_nan(op: str, version: int) -> Iterator[Case]:
    yield Case([np.array([[1, np.inf, -np.inf], [np.nan, 0, 3]], np.float32)])


@cases_for("Not")
def negation(op: str, version: int) -> Iterator[Case]:
    yield Case([truths(3, 4)])


@cases_for("BitwiseNot")
def bitwise_not(op: str, version: int) -> Iterator[Case]:
    yield Case([whole(3, 4, low=-9, dtype=np.int32)])


@cases_for("Identity")
def identity(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(2, 3)])
    yield Case([text("a", "Ω", "")])
    if version >= 14:
        yield Case([[floats(2, 3), floats(1, seed=1)]])
