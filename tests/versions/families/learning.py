"""Losses, and the optimisers of ai.onnx.preview.training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import helper

from ..case import Case, cases_for, in_type_for
from ..data import Array, floats, whole

TRAINING = "ai.onnx.preview.training"


@cases_for("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
def loss(op: str, version: int) -> Iterator[Case]:
    scores, labels, weights = floats(3, 5, low=-3, high=0), whole(3, high=5), floats(5, low=0.1)
    outputs = 2 if op[0] == "S" else 1
    yield Case([scores, labels], outputs=outputs)
    for reduction in ("none", "sum", "mean"):
        given = {"reduction": reduction, "ignore_index": int(labels[0])}
        yield Case([scores, labels, weights], given, outputs=outputs)
    yield Case([floats(2, 4, 3, low=-3, high=0), whole(2, 3, high=4)], {"reduction": "none"}, outputs=outputs)


def state(count: int) -> list[Array]:
    """Rate, step, then ``count`` tensors for each of two parameters."""
    tensors = [floats(*shape, low=0.1, seed=i) for i in range(count) for shape in ((2, 3), (4,))]
    return [np.array(0.1, np.float32), np.array(3), *tensors]


@cases_for("Adagrad", "Adam", "Momentum", domain=TRAINING)
def optimiser(op: str, version: int) -> Iterator[Case]:
    formula = {"Adagrad": _adagrad, "Adam": _adam, "Momentum": _momentum}[op]
    given = {
        "Adagrad": {"decay_factor": 0.1, "epsilon": 1e-3, "norm_coefficient": 0.02},
        "Adam": {"alpha": 0.8, "beta": 0.95, "epsilon": 1e-3, "norm_coefficient": 0.02},
        "Momentum": {"alpha": 0.9, "beta": 0.7, "norm_coefficient": 0.02, "mode": "nesterov"},
    }[op]
    count, kept = (4, 3) if op == "Adam" else (3, 2)

    def expect(rate: Array, step: Array, *tensors: Array) -> list[Array]:
        each = [formula(rate, step, *tensors[i::2]) for i in range(2)]
        return [each[i][k].astype(tensors[0].dtype) for k in range(kept) for i in range(2)]

    yield Case(state(count), given, outputs=2 * kept, expect=expect)


def _adagrad(rate: Array, step: Array, x: Array, g: Array, h: Array) -> list[Array]:
    g = 0.02 * x + g
    h = h + g * g
    return [x - rate / (1 + step * 0.1) * g / (np.sqrt(h) + 1e-3), h]


def _adam(rate: Array, step: Array, x: Array, g: Array, v: Array, h: Array) -> list[Array]:
    g = 0.02 * x + g
    v, h = 0.8 * v + 0.2 * g, 0.95 * h + 0.05 * g * g
    adjusted = rate * np.sqrt(1 - 0.95**step) / (1 - 0.8**step)
    return [x - adjusted * v / (np.sqrt(h) + 1e-3), v, h]


def _momentum(rate: Array, step: Array, x: Array, g: Array, v: Array) -> list[Array]:
    g = 0.02 * x + g
    v = 0.9 * v + 0.7 * g  # beta holds after the first step
    return [x - rate * (g + 0.9 * v), v]


@cases_for("Gradient", domain=TRAINING)
def gradient(op: str, version: int) -> Iterator[Case]:
    yield differentiated("float32")


@in_type_for("Gradient", domain=TRAINING)
def gradient_in_type(op: str, version: int, variable: str, element: str) -> Case | None:
    """Only floats have derivatives, whatever T1 allows."""
    return differentiated(element) if element.startswith("float") else None


def differentiated(element: str) -> Case:
    """y = a b + a."""
    a, b = floats(2, 3).astype(element), floats(2, 3, seed=1).astype(element)
    product = [helper.make_node("Mul", ["x0", "x1"], ["p"]), helper.make_node("Add", ["p", "x0"], ["q"])]
    given = {"xs": ["x0", "x1"], "y": "q"}
    return Case([a, b], given, outputs=2, before=product, expect=lambda a, b: [b + 1, a], retype=False)
