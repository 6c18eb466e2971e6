"""Operators with a neutral element, and others that return their input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from ..backend.subgraph import constant_of, static_shape
from ._edit import bypass
from .rule import Scope, Verdict, input_of, rule
from .shapes import same_shape

_NEUTRAL = {"Mul": 1, "Div": 1, "Pow": 1, "Add": 0, "Sub": 0, "And": True, "Or": False}
_EITHER_SIDE = frozenset({"Mul", "Add", "And", "Or"})


@rule(*_NEUTRAL)
def remove_neutral(node: ir.Node, scope: Scope) -> Verdict:
    """x · 1 = x / 1 = x¹ = x + 0 = x - 0 = x, where the constant neither widens the shape nor changes the type."""
    sides = (1, 0) if node.op_type in _EITHER_SIDE else (1,)
    for side in sides:
        array, value = constant_of(node.inputs[side]), node.inputs[1 - side]
        if array is None or value is None or not _is_all(array, _NEUTRAL[node.op_type]):
            continue
        if value.dtype is None or value.dtype != node.outputs[0].dtype:
            return f"{value.name} is {value.dtype}, and the result {node.outputs[0].dtype}"
        if not same_shape(value, node.outputs[0]) and not _keeps_shape(array, value):
            return f"the constant of shape {list(array.shape)} may widen {value.name} {value.shape}"
        return bypass(node, value)
    return False


def _is_all(array: np.ndarray[Any, Any], number: int | bool) -> bool:
    """Whether an array has that number in every place; most differ in the first."""
    if not array.size or array.dtype.kind in "OSU" or array.flat[0] != number:
        return False
    return bool((array == number).all())


def _keeps_shape(array: np.ndarray[Any, Any], value: ir.Value) -> bool:
    return array.size == 1 and (
        array.ndim == 0 or (value.shape is not None and len(value.shape) >= array.ndim)
    )


@rule("Concat", "Sum", "Max", "Min", "Mean", "Pad", "Tile", "Slice", "Clip")
def remove_idle(node: ir.Node, scope: Scope) -> Verdict:
    """Concat(x) = Sum(x) = Max(x) = x; Pad by nothing, Tile once, Slice of all, Clip without bounds: x."""
    data = node.inputs[0]
    if data is None or not _IDLE[node.op_type](node):
        return False
    return bypass(node, data)


def _alone(node: ir.Node) -> bool:
    return len(node.inputs) == 1


def _pads_nothing(node: ir.Node) -> bool:
    given = node.attributes.get("pads")
    pads = constant_of(input_of(node, 1)) if given is None else np.array(given.as_ints())
    return pads is not None and not pads.any()


def _once(node: ir.Node) -> bool:
    repeats = constant_of(input_of(node, 1))
    return repeats is not None and bool((repeats == 1).all())


def _takes_all(node: ir.Node) -> bool:
    source, result = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    steps = constant_of(input_of(node, 4)) if input_of(node, 4) is not None else np.array([1])
    return source is not None and source == result and steps is not None and bool((steps > 0).all())


def _unbounded(node: ir.Node) -> bool:
    return not any(node.inputs[1:]) and not node.attributes


_IDLE: dict[str, Callable[[ir.Node], bool]] = {
    **dict.fromkeys(("Concat", "Sum", "Max", "Min", "Mean"), _alone),
    "Pad": _pads_nothing,
    "Tile": _once,
    "Slice": _takes_all,
    "Clip": _unbounded,
}

RULES = (remove_neutral, remove_idle)
