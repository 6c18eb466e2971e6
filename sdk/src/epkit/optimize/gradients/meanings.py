"""Operators whose gradient is that of what they mean: the node is replaced by other operators first.

Those for which the standard itself gives a body in other operators need nothing here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .step import NoRule, Step
from .term import Term

Meaning = Callable[[Step], "list[Term]"]


def _global_pool(reduction: str) -> Meaning:
    return lambda s: [s.x().op(reduction, list(range(2, s.rank())), keepdims=1)]


def _batch_normalization(s: Step) -> list[Term]:
    """``(x - mean) / sqrt(var + epsilon) * scale + bias`` along axis 1."""
    training = s.opset >= 14 and s.attr("training_mode", 0) == 1
    if (s.opset < 7 and s.attr("is_test", 0) == 0) or (s.opset < 9 and s.attr("spatial", 1) != 1):
        raise NoRule("it is of an old version, in training or not spatial")
    x = s.x()
    axes = [0, *range(2, s.rank())]
    per_channel = s.build.constant(np.array([1, -1, *[1] * (s.rank() - 2)], np.int64))
    scale, bias, mean, variance = (s.x(i).like(x).op("Reshape", per_channel) for i in range(1, 5))
    if training:
        mean = x.op("ReduceMean", axes, keepdims=1)
        variance = ((x - mean) * (x - mean)).op("ReduceMean", axes, keepdims=1)
    result = (x - mean) / (variance + s.attr("epsilon", 1e-5)).op("Sqrt") * scale + bias
    if not training:
        return [result]
    momentum = s.attr("momentum", 0.9)
    running = [
        s.x(i) * momentum + batch.reshape(s.x(i).shape()).like(s.x(i)) * (1.0 - momentum)
        for i, batch in ((3, mean), (4, variance))
    ]
    return [result, *running]


def _instance_normalization(s: Step) -> list[Term]:
    x, axes = s.x(), list(range(2, s.rank()))
    per_channel = s.build.constant(np.array([1, -1, *[1] * (s.rank() - 2)], np.int64))
    mean = x.op("ReduceMean", axes, keepdims=1)
    variance = ((x - mean) * (x - mean)).op("ReduceMean", axes, keepdims=1)
    scale, bias = (s.x(i).op("Reshape", per_channel) for i in (1, 2))
    return [(x - mean) / (variance + s.attr("epsilon", 1e-5)).op("Sqrt") * scale + bias]


def _lp_normalization(s: Step) -> list[Term]:
    norm = "ReduceL1" if s.attr("p", 2) == 1 else "ReduceL2"
    return [s.x() / s.x().op(norm, [s.attr("axis", -1)], keepdims=1)]


MEANINGS: dict[str, Meaning] = {
    "GlobalAveragePool": _global_pool("ReduceMean"),
    "GlobalMaxPool": _global_pool("ReduceMax"),
    "BatchNormalization": _batch_normalization,
    "InstanceNormalization": _instance_normalization,
    "LpNormalization": _lp_normalization,
}
