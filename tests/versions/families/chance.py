"""Random operators, and Dropout: type, shape and distribution are what can be told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from epkit.dtypes import CODE, numpy_dtype

from ..case import Case, Outputs, cases_for, in_type_for
from ..data import Array, floats

SHAPE = (50, 60)
Judge = Callable[[Outputs], None]


def spread(dtype: str, mean: float, deviation: float, low: float = -np.inf, high: float = np.inf) -> Judge:
    """Type, SHAPE, range, and mean and deviation within what chance allows (six sigma)."""

    def judge(outputs: Outputs) -> None:
        (found,) = outputs
        assert (found.dtype.name, found.shape) == (dtype, SHAPE)
        numbers = found.astype(np.float64)
        assert low <= numbers.min()
        assert numbers.max() <= high
        assert abs(numbers.mean() - mean) < 6 * deviation / np.sqrt(numbers.size)
        assert abs(numbers.std() / deviation - 1) < 0.1

    return judge


def drawn(op: str, kind: str = "float32", given: str = "float32", **attributes: Any) -> Case:
    """One draw: ``kind`` is the element type of the result, ``given`` that of the input."""
    if op == "Multinomial":
        return _picked(kind, given, **attributes)
    mean, deviation, low, high = _expected(op, attributes)
    inputs = [] if op in ("RandomNormal", "RandomUniform") else [np.full(SHAPE, P).astype(numpy_dtype(given))]
    if given == "string":
        inputs = [np.full(SHAPE, "text", object)]
    shape = {} if inputs else {"shape": SHAPE}
    named = attributes if kind == given == "float32" else {**attributes, "dtype": CODE[kind]}
    return Case(inputs, {**shape, **named}, judge=spread(kind, mean, deviation, low, high), retype=False)


P = 0.3


def _expected(op: str, given: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """Mean, deviation and range."""
    if op.startswith("RandomNormal"):
        return given.get("mean", 0.0), given.get("scale", 1.0), -np.inf, np.inf
    if op == "Bernoulli":
        return P, float(np.sqrt(P * (1 - P))), 0.0, 1.0
    low, high = given.get("low", 0.0), given.get("high", 1.0)
    return (low + high) / 2, (high - low) / np.sqrt(12), low, high


def _picked(kind: str, given: str, **attributes: Any) -> Case:
    """The input is log-probabilities, up to a constant for each row."""
    shares = np.array([0.5, 0.2, 0.3])
    logits = np.repeat(np.log(shares)[None] + 4, SHAPE[0], axis=0).astype(numpy_dtype(given))
    mean = float(shares @ np.arange(3))
    deviation = float(np.sqrt(shares @ np.arange(3) ** 2 - mean**2))
    named = {"sample_size": SHAPE[1], "dtype": CODE[kind], **attributes}
    return Case([logits], named, judge=spread(kind, mean, deviation, 0, 2), retype=False)


@cases_for("RandomNormal", "RandomNormalLike")
def normal(op: str, version: int) -> Iterator[Case]:
    yield drawn(op)
    yield drawn(op, "float64", mean=3.0, scale=0.5, seed=1.0)


@cases_for("RandomUniform", "RandomUniformLike")
def uniform(op: str, version: int) -> Iterator[Case]:
    yield drawn(op)
    yield drawn(op, "float16", low=-2.0, high=4.0, seed=1.0)


@cases_for("Bernoulli")
def bernoulli(op: str, version: int) -> Iterator[Case]:
    yield drawn(op)
    yield drawn(op, "int32", seed=2.0)


@cases_for("Multinomial")
def multinomial(op: str, version: int) -> Iterator[Case]:
    yield drawn(op, "int32")
    yield drawn(op, "int64", seed=3.0)


@in_type_for(
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"
)
def in_type(op: str, version: int, variable: str, element: str) -> Case:
    """T1 is the input's type; that of the result is told by ``dtype``."""
    result = "int32" if op == "Multinomial" else "float32"
    return drawn(op, result, given=element) if variable == "T1" else drawn(op, element)


def dropped(x: Array, ratio: float, mask_type: str) -> Judge:
    """About ``ratio`` of the elements are zero where the mask is, the others are scaled up."""

    def judge(outputs: Outputs) -> None:
        y, mask = outputs
        assert (y.dtype, y.shape) == (x.dtype, x.shape)
        assert (mask.dtype.name, mask.shape) == (mask_type, x.shape)
        kept = mask.astype(bool)
        np.testing.assert_allclose(y, np.where(kept, x / (1 - ratio), 0), rtol=1e-5)
        assert abs(kept.mean() - (1 - ratio)) < 6 * np.sqrt(ratio * (1 - ratio) / x.size)

    return judge


@cases_for("Dropout")
def dropout(op: str, version: int) -> Iterator[Case]:
    x = floats(*SHAPE, low=1)
    if version < 7:
        yield Case([x], {"is_test": 1, "ratio": 0.3})
        yield Case([x], {"ratio": 0.3}, outputs=2, judge=dropped(x, 0.3, "float32"), retype=False)
    elif version < 12:
        mask = "float32" if version < 10 else "bool"
        yield Case([x], {"ratio": 0.3})
        yield Case([x], {"ratio": 0.3}, outputs=2, expect=lambda x: [x, np.ones(x.shape, mask)], retype=False)
    else:
        ratio, training = np.array(0.3, np.float32), np.array(True)
        yield Case([x], outputs=2)
        yield Case([x, ratio, ~training], outputs=2)
        for more in ({}, {"seed": 5}):
            yield Case([x, ratio, training], more, outputs=2, judge=dropped(x, 0.3, "bool"), retype=False)
        yield Case([x, None, training], outputs=2, judge=dropped(x, 0.5, "bool"), retype=False)
