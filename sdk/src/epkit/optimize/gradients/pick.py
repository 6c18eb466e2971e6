"""Operators that pick elements of their input: each gradient goes back to where the element came from."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .step import Grads, NoRule, Rule, Step
from .term import Term


def positions(x: Term) -> Term:
    """The number of each element, in the shape of ``x``."""
    zero, one = (x.build.constant(np.array(number, np.int64)) for number in (0, 1))
    return zero.op("Range", x.size(), one).reshape(x.shape())


def put_back(x: Term, found: Term, g: Term) -> Term:
    """Zeros in the shape of ``x``, with ``g`` added at the positions found."""
    flat = x.build.number(0.0, x).op("Expand", x.size().reshape([1]))
    flat = flat.op("ScatterElements", found.reshape([-1]), g.reshape([-1]), axis=0, reduction="add")
    return flat.reshape(x.shape())


def _pick(s: Step) -> Grads:
    """For any operator that picks: let it pick from the positions, and see which it took."""
    node = s.build.copy(s.node, [positions(s.x()).value, *s.node.inputs[1:]])
    node.outputs[0].type = ir.TensorType(ir.DataType.INT64)
    return [put_back(s.x(), s.build.term(node.outputs[0]), s.g())]


def _gather(s: Step) -> Grads:
    if s.attr("axis", 0) != 0:
        return _pick(s)
    x = s.x()
    zero = s.build.constant(np.array(0, np.int64))
    index = s.x(1).like(zero)
    rows = x.shape().op("Gather", zero, axis=0)
    index = (index + rows).where(index < zero, index)
    return [x.zeros().op("ScatterND", index.op("Unsqueeze", [-1]), s.g(), reduction="add")]


def _gather_elements(s: Step) -> Grads:
    return [s.x().zeros().op("ScatterElements", s.x(1), s.g(), axis=s.attr("axis", 0), reduction="add")]


def _gather_nd(s: Step) -> Grads:
    if s.attr("batch_dims", 0):
        return _pick(s)
    return [s.x().zeros().op("ScatterND", s.x(1), s.g(), reduction="add")]


def _scatter_elements(s: Step) -> Grads:
    axis, updates = s.attr("axis", 0), s.x(2)
    data = s.g()
    if _replaces(s):
        data = data.op("ScatterElements", s.x(1), updates.zeros(), axis=axis)
    return [data, None, s.g().op("GatherElements", s.x(1), axis=axis)]


def _scatter_nd(s: Step) -> Grads:
    data = s.g()
    if _replaces(s):
        data = data.op("ScatterND", s.x(1), s.x(2).zeros())
    return [data, None, s.g().op("GatherND", s.x(1))]


def _replaces(s: Step) -> bool:
    reduction = s.attr("reduction", "none")
    if reduction not in ("none", "add"):
        raise NoRule(f"its reduction is {reduction!r}")
    return bool(reduction == "none")


def _top_k(s: Step) -> Grads:
    indices = (
        s.y(1) if s.node.outputs[1].name else s.build.term(s.build.copy(s.node, s.node.inputs, 2).outputs[1])
    )
    return [s.x().zeros().op("ScatterElements", indices, s.g(), axis=s.attr("axis", -1))]


def _pad(s: Step) -> Grads:
    """Cutting off is padding by less than nothing. The padding itself depends on the constant."""
    if s.attr("mode", "constant") != "constant":
        return _pick(s)
    pads = s.x(1) if s.has(1) else s.build.constant(np.array(s.attr("pads", s.attr("paddings")), np.int64))
    cut = s.g().op("Pad", -pads, 0.0, s.x(3)) if s.has(3) else s.g().op("Pad", -pads)
    if not s.has(2):
        return [cut]
    rest = s.g().op("ReduceSum", keepdims=0) - cut.op("ReduceSum", keepdims=0)
    return [cut, None, rest.reshape(s.x(2).shape())]


def _max_pool(s: Step) -> Grads:
    """The operator itself can say where each maximum was."""
    if s.attr("storage_order", 0):
        raise NoRule("its storage_order is not 0")
    node = s.build.node("MaxPool", s.node.inputs, tuple(s.node.attributes.values()), 2)
    node.outputs[1].type = ir.TensorType(ir.DataType.INT64)
    return [put_back(s.x(), s.build.term(node.outputs[1]), s.g())]


RULES: dict[str, Rule] = {
    "Slice": _pick,
    "Tile": _pick,
    "Compress": _pick,
    "DepthToSpace": _pick,
    "SpaceToDepth": _pick,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TopK": _top_k,
    "Pad": _pad,
    "MaxPool": _max_pool,
}
