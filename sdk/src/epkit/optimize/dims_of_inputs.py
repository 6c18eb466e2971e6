"""Dimensions asked of a value in the middle of the graph, asked of the graph's inputs instead."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx_ir as ir

from .dims import elements
from .rule import Scope, Verdict, producer, rule
from .shapes import Dim


@rule("Slice", "Gather")
def dims_of_inputs(node: ir.Node, scope: Scope) -> Verdict:
    """Shape(v)[i] = Shape(x)[j], where dimension i of v has the name of dimension j of an input x.

    So v need not be made for its shape alone: exporters ask the repeated keys how long a mask has to be.
    """
    shape = producer(node.inputs[0], "Shape")
    asked = None if shape is None else shape.inputs[0]
    if asked is None or asked.producer() is None or node.outputs[0].dtype != ir.DataType.INT64:
        return False
    found = elements(node.outputs[0])
    if not found or all(isinstance(dim, int) for dim in found):
        return False
    parts = [_part(dim, scope) for dim in found]
    if None in parts:
        return f"no input has the dimensions {', '.join(map(str, found))} of {asked.name}"
    if node.outputs[0].shape is not None and not len(node.outputs[0].shape):
        return scope.replace(node, _scalar(parts[0], scope))
    whole = parts[0]
    if len(parts) > 1:
        whole = scope.make(node, "Concat", parts, {"axis": 0}, 13, node.outputs[0])
    assert whole is not None
    return scope.replace(node, whole)


def _part(dim: Dim, scope: Scope) -> ir.Value | None:
    """A dimension as a vector of one element, if it is a number or some input has it."""
    if isinstance(dim, int):
        return scope.constant(np.array([dim], np.int64), f"dimension_{dim}")
    place = None if dim.value is None else _place(str(dim.value), scope)
    return None if place is None else _vector(*place, scope)


def _place(name: str, scope: Scope) -> tuple[ir.Value, int] | None:
    """The input of the whole model, and its axis, that has a name for its size."""
    for value in scope.model.graph.inputs:
        for axis, dim in enumerate(value.shape or ()):
            if not isinstance(dim, int) and dim.value == name:
                return value, axis
    return None


def _vector(data: ir.Value, axis: int, scope: Scope) -> ir.Value:
    """A dimension as a vector of one element; made once, in front of everything."""
    key = ("dimension", data, axis)
    if key not in scope.memo:
        made = scope.make(scope.graph[0], "Shape", [data], {"start": axis, "end": axis + 1}, version=15)
        made.type, made.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([1])
        scope.memo[key] = made
    return scope.memo[key]


def _scalar(vector: ir.Value | None, scope: Scope) -> ir.Value:
    """The only element of a vector; made once, behind it."""
    key = ("element", vector)
    if key not in scope.memo:
        maker = None if vector is None else vector.producer()
        assert maker is not None
        following = next(after for before, after in pairwise(scope.graph) if before is maker)
        made = scope.make(following, "Squeeze", [vector], version=13)
        made.type, made.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([])
        scope.memo[key] = made
    return scope.memo[key]


RULES = (dims_of_inputs,)
