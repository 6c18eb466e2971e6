"""Reductions, and operators that normalise along axes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..case import Case, cases_for
from ..data import Array, floats, ints


@cases_for(
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
    *("ReduceProd", "ReduceSum", "ReduceSumSquare"),
)
def reduction(op: str, version: int) -> Iterator[Case]:
    x = floats(3, 4, 2, low=0.2 if op == "ReduceLogSum" else -2.0)
    as_input = version >= (13 if op == "ReduceSum" else 18)
    yield Case([x])
    yield Case([x], {"keepdims": 0})
    for axes in ((1,), (0, 2), *(((-1, 0),) if version >= 11 else ())):
        yield Case([x, ints(*axes)]) if as_input else Case([x], {"axes": axes, "keepdims": 0})
    if as_input:
        yield Case([x, ints()], {"noop_with_empty_axes": 1})
        yield Case([x, ints()])


@cases_for("Softmax", "LogSoftmax", "Hardmax")
def softmax(op: str, version: int) -> Iterator[Case]:
    """Before opset 13, the axes from ``axis`` on count as one."""
    x = floats(2, 3, 4)
    yield Case([x])
    for axis in (0, 1, 2, *((-1, -2) if version >= 11 else ())):
        yield Case([x], {"axis": axis})


@cases_for("LpNormalization")
def lp_normalization(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(2, 3, 4)])
    yield Case([floats(2, 3, 4)], {"axis": 1, "p": 1})


@cases_for("MeanVarianceNormalization")
def mean_variance(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(2, 3, 4, 2)])
    yield Case([floats(2, 3, 4)], {"axes": (0, 2)})


@cases_for("LRN")
def local_response(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(2, 5, 3, 3)], {"size": 3})
    yield Case([floats(2, 5, 3, 3)], {"size": 4, "alpha": 0.5, "beta": 0.6, "bias": 2.0}, expect=_over_four)


def _over_four(x: Array) -> list[Array]:
    """LRN of size 4: one channel before and two after, divided by (2 + 0.5 / 4 * sum of squares) ^ 0.6."""
    total = np.stack([(x[:, max(0, c - 1) : c + 3] ** 2).sum(1) for c in range(x.shape[1])], axis=1)
    return [x / (2 + 0.125 * total) ** 0.6]


@cases_for("InstanceNormalization")
def instance(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(2, 3, 4, 5), floats(3), floats(3, seed=1)])
    yield Case([floats(2, 3, 4), floats(3), floats(3, seed=1)], {"epsilon": 0.1})


@cases_for("GroupNormalization")
def group(op: str, version: int) -> Iterator[Case]:
    """Version 18, deprecated for that reason, has a scale and a bias for each group instead of each channel."""
    if version < 21:
        yield Case(
            [floats(2, 6, 4, 5), floats(3), floats(3, seed=1)], {"num_groups": 3}, expect=_three_groups
        )
        return
    yield Case([floats(2, 6, 4, 5), floats(6), floats(6, seed=1)], {"num_groups": 3})
    yield Case([floats(2, 6, 4), floats(6), floats(6, seed=1)], {"num_groups": 2, "epsilon": 0.1})


def _three_groups(x: Array, scale: Array, bias: Array) -> list[Array]:
    groups = x.reshape(len(x), 3, -1).astype(np.float64)
    normal = (groups - groups.mean(2, keepdims=True)) / np.sqrt(groups.var(2, keepdims=True) + 1e-5)
    return [(normal * scale[:, None] + bias[:, None]).reshape(x.shape).astype(x.dtype)]


@cases_for("LayerNormalization")
def layer(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(2, 3, 4), floats(4), floats(4, seed=1)], outputs=3)
    yield Case([floats(2, 3, 4), floats(3, 4)], {"axis": 1, "epsilon": 0.1})


@cases_for("RMSNormalization")
def root_mean_square(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(2, 3, 4), floats(4)])
    yield Case([floats(2, 3, 4), floats(3, 4)], {"axis": 1, "epsilon": 0.1})


@cases_for("BatchNormalization")
def batch(op: str, version: int) -> Iterator[Case]:
    x = floats(4, 3, 2, 5)
    parameters = [floats(3), floats(3, seed=1), floats(3, seed=2), floats(3, low=0.2, seed=3)]
    yield Case([x, *parameters], {"is_test": 1} if version < 7 else {})
    yield Case([x, *parameters], {"epsilon": 0.1, **({"is_test": 1} if version < 7 else {})})
    if version < 9:
        each = [floats(3, 2, 5, low=0.2, seed=seed) for seed in range(4)]
        flags = {"spatial": 0, **({"is_test": 1} if version < 7 else {})}
        yield Case([x, *each], flags, expect=lambda x, s, b, m, v: [(x - m) / np.sqrt(v + 1e-5) * s + b])
    if version < 14:
        yield Case([x, *parameters], {"momentum": 0.8}, outputs=5, expect=_trained)
    else:
        flags = {"training_mode": 1, "momentum": 0.8}
        yield Case([x, *parameters], flags, outputs=3, expect=lambda *inputs: _trained(*inputs)[:3])


def _trained(x: Array, scale: Array, bias: Array, mean: Array, var: Array) -> list[Array]:
    """Normalised by the batch's own statistics, which are then mixed into the running ones."""
    wide = x.astype(np.float64)
    own_mean, own_var = wide.mean((0, 2, 3)), wide.var((0, 2, 3))
    column = (-1, 1, 1)
    y = (wide - own_mean.reshape(column)) / np.sqrt(own_var.reshape(column) + 1e-5)
    y = y * scale.reshape(column) + bias.reshape(column)
    results = [y, mean * 0.8 + own_mean * 0.2, var * 0.8 + own_var * 0.2, own_mean, own_var]
    return [result.astype(x.dtype) for result in results]
