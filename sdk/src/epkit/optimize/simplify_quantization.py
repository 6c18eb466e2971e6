"""Quantising what has just been dequantised, or bounded."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..backend.subgraph import constant_of
from ._edit import bypass
from .rule import Scope, Verdict, input_of, only_use, producer, rule


@rule("QuantizeLinear")
def requantize(node: ir.Node, scope: Scope) -> Verdict:
    """Quantize(Dequantize(q, s, z), s, z) = q, where both have one scale, one zero point and one type."""
    before = producer(node.inputs[0], "DequantizeLinear")
    if before is None or before.inputs[0] is None:
        return False
    codes = before.inputs[0]
    if codes.dtype is None or codes.dtype != node.outputs[0].dtype:
        return f"{codes.name} is {codes.dtype}, and {node.outputs[0].name} {node.outputs[0].dtype}"
    for index, name in ((1, "scale"), (2, "zero point")):
        if not _equal(input_of(node, index), input_of(before, index)):
            return f"the {name} of {node.name} is not that of {before.name}"
    for name in ("axis", "block_size"):
        mine, other = node.attributes.get(name), before.attributes.get(name)
        if (mine and mine.value) != (other and other.value):
            return f"{name} of {node.name} is not that of {before.name}"
    scale = constant_of(input_of(node, 1))
    if scale is None or not np.all(scale.astype(np.float64) > 0):
        return "the scale is not known to be positive"
    if codes.dtype.name not in ("INT8", "UINT8", "INT4", "UINT4", "INT16", "UINT16"):
        return f"codes of {codes.dtype} are no integers"
    return bypass(node, codes)


@rule("QuantizeLinear")
def saturate(node: ir.Node, scope: Scope) -> Verdict:
    """Quantize(Relu(x)) = Quantize(x) = Quantize(Clip(x)), where the bounds have the outermost codes."""
    bounded = producer(node.inputs[0], "Relu", "Clip")
    if bounded is None or bounded.inputs[0] is None or not only_use(bounded.outputs[0]):
        return False
    zero, scale, kind = constant_of(input_of(node, 2)), constant_of(input_of(node, 1)), node.outputs[0].dtype
    bounds = _bounds(bounded)
    limits = _LIMITS.get("" if kind is None else kind.name)
    if zero is None or scale is None or bounds is None or limits is None:
        return f"the bounds of {bounded.name}, or the scale or zero point of {node.name}, are not known"
    steps = scale.astype(np.float32)
    if not np.all(steps > 0):
        return "the scale is not known to be positive"
    with np.errstate(over="ignore"):
        low, high = (np.rint(np.float32(bound) / steps) + zero.astype(np.float64) for bound in bounds)
    if np.any(low > limits[0]) or np.any(high < limits[1]):
        return f"codes of {node.name} stand for numbers that {bounded.name} does not make"
    node.replace_input_with(0, bounded.inputs[0])
    scope.remove([bounded])
    return True


_LIMITS = {"INT8": (-128, 127), "UINT8": (0, 255), "INT16": (-32768, 32767), "UINT16": (0, 65535)}
"""The least and the greatest code of each type."""


def _bounds(node: ir.Node) -> tuple[float, float] | None:
    """Between which numbers Relu or Clip leaves its input as it is, if that is known."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    bounds = []
    for place, name, default in ((1, "min", -np.inf), (2, "max", np.inf)):
        given, value = node.attributes.get(name), input_of(node, place)
        array = constant_of(value) if value is not None else np.array(default)
        if array is None or array.size != 1:
            return None
        bounds.append(float(array.reshape(())) if given is None else given.as_float())
    return bounds[0], bounds[1]


def _equal(a: ir.Value | None, b: ir.Value | None) -> bool:
    if a is b:
        return True
    one, other = constant_of(a), constant_of(b)
    if one is None or other is None:  # a zero point left out is zero
        given = one if other is None else other
        return (a is None or b is None) and given is not None and not given.any()
    return one.dtype == other.dtype and one.shape == other.shape and bool(np.array_equal(one, other))


RULES = (requantize, saturate)
