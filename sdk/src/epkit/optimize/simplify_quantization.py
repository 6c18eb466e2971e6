"""Quantising what has just been dequantised."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..backend.subgraph import constant_of
from ._edit import bypass
from .rule import Scope, Verdict, input_of, producer, rule


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


def _equal(a: ir.Value | None, b: ir.Value | None) -> bool:
    if a is b:
        return True
    one, other = constant_of(a), constant_of(b)
    if one is None or other is None:  # a zero point left out is zero
        given = one if other is None else other
        return (a is None or b is None) and given is not None and not given.any()
    return one.dtype == other.dtype and one.shape == other.shape and bool(np.array_equal(one, other))


RULES = (requantize,)
