"""Operators that move elements as a whole: shapes, axes, joining and cutting."""

from __future__ import annotations

import numpy as np

from .step import Grads, Rule, Step


def _reshaped(s: Step) -> Grads:
    """Whatever the new shape was, the gradient has the old one."""
    return [s.g().reshape(s.x().shape())]


def _transpose(s: Step) -> Grads:
    perm = s.attr("perm")
    if perm is None:
        return [s.g().op("Transpose")]
    return [s.g().op("Transpose", perm=[int(axis) for axis in np.argsort(perm)])]


def _expand(s: Step) -> Grads:
    return [s.g().sum_to(s.x())]


def _concat(s: Step) -> Grads:
    axis = s.attr("axis", 1)
    parts = [x for x in s.inputs if x is not None]
    if len(parts) == 1:
        return [s.g()]
    lengths = [part.shape().op("Gather", [axis], axis=0) for part in parts]
    split = lengths[0].op("Concat", *lengths[1:], axis=0)
    node = s.build.node("Split", [s.g().value, split.value], {"axis": axis}, len(parts))
    for output in node.outputs:
        output.type = s.g().value.type
    return [s.build.term(output) for output in node.outputs]


def _split(s: Step) -> Grads:
    grads = [s.g(index) for index in range(len(s.node.outputs))]
    return [grads[0].op("Concat", *grads[1:], axis=s.attr("axis", 0))]


def _trilu(s: Step) -> Grads:
    return [s.g().op("Trilu", s.x(1) if s.has(1) else None, upper=s.attr("upper", 1))]


def _cumsum(s: Step) -> Grads:
    """What a sum took from behind, its gradient takes from ahead."""
    return [s.g().op("CumSum", s.x(1), exclusive=s.attr("exclusive", 0), reverse=1 - s.attr("reverse", 0))]


def _reverse_sequence(s: Step) -> Grads:
    """Its own inverse."""
    axes = {name: s.attr(name, default) for name, default in (("batch_axis", 1), ("time_axis", 0))}
    return [s.g().op("ReverseSequence", s.x(1), **axes)]


RULES: dict[str, Rule] = {
    "Reshape": _reshaped,
    "Flatten": _reshaped,
    "Squeeze": _reshaped,
    "Unsqueeze": _reshaped,
    "Transpose": _transpose,
    "Expand": _expand,
    "Concat": _concat,
    "Split": _split,
    "Trilu": _trilu,
    "CumSum": _cumsum,
    "ReverseSequence": _reverse_sequence,
}
