"""Random operators, and Dropout: type, shape and distribution are what can be told."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from onnx import TensorProto

from ..case import Case, Outputs, cases_for
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


@cases_for("RandomNormal", "RandomNormalLike")
def normal(op: str, version: int) -> Iterator[Case]:
    inputs = [np.zeros(SHAPE, np.float32)] if op.endswith("Like") else []
    shape = {} if inputs else {"shape": SHAPE}
    yield Case(inputs, shape, judge=spread("float32", 0, 1), retype=False)
    shifted = {**shape, "mean": 3.0, "scale": 0.5, "seed": 1.0, "dtype": TensorProto.DOUBLE}
    yield Case(inputs, shifted, judge=spread("float64", 3, 0.5), retype=False)


@cases_for("RandomUniform", "RandomUniformLike")
def uniform(op: str, version: int) -> Iterator[Case]:
    inputs = [np.zeros(SHAPE, np.float32)] if op.endswith("Like") else []
    shape = {} if inputs else {"shape": SHAPE}
    deviation = 1 / np.sqrt(12)
    yield Case(inputs, shape, judge=spread("float32", 0.5, deviation, 0, 1), retype=False)
    wide = {**shape, "low": -2.0, "high": 4.0, "seed": 1.0, "dtype": TensorProto.FLOAT16}
    yield Case(inputs, wide, judge=spread("float16", 1, 6 * deviation, -2, 4), retype=False)


@cases_for("Bernoulli")
def bernoulli(op: str, version: int) -> Iterator[Case]:
    p = np.full(SHAPE, 0.3, np.float32)
    deviation = np.sqrt(0.3 * 0.7)
    yield Case([p], judge=spread("float32", 0.3, deviation, 0, 1), retype=False)
    whole = {"dtype": TensorProto.INT32, "seed": 2.0}
    yield Case([p], whole, judge=spread("int32", 0.3, deviation, 0, 1), retype=False)


@cases_for("Multinomial")
def multinomial(op: str, version: int) -> Iterator[Case]:
    """The input is log-probabilities, up to a constant for each row."""
    shares = np.array([0.5, 0.2, 0.3])
    logits = np.repeat(np.log(shares)[None] + 4, SHAPE[0], axis=0).astype(np.float32)
    mean = float(shares @ np.arange(3))
    deviation = float(np.sqrt(shares @ np.arange(3) ** 2 - mean**2))
    for code, name in ((TensorProto.INT32, "int32"), (TensorProto.INT64, "int64")):
        given = {"sample_size": SHAPE[1], "dtype": code, "seed": 3.0}
        yield Case([logits], given, judge=spread(name, mean, deviation, 0, 2), retype=False)


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
