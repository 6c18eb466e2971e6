"""Expressions that make nodes: ``g * (1 - y * y)`` over graph values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from ...backend.subgraph import static_shape

OPSET = 18
"""The oldest opset in whose operators rules are written; nodes in older models carry this version."""


class Builder:
    """Makes nodes, to be put into a graph together.

    Args:
        prefix: begins the names of nodes and values.
        taken: all value names of the model; those made are added.
        opset: version of the default domain in the graph.
    """

    def __init__(self, prefix: str, taken: set[str], opset: int) -> None:
        self.nodes: list[ir.Node] = []
        self.prefix, self.taken = prefix, taken
        self.version = None if opset >= OPSET else OPSET

    def term(self, value: ir.Value) -> Term:
        """A value as a term."""
        return Term(value, self)

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Any = (),
        outputs: int = 1,
        domain: str = "",
    ) -> ir.Node:
        """A new node with names of its own."""
        name = self.fresh(op_type)
        made = [ir.Value(name=name if index == 0 else f"{name}:{index}") for index in range(outputs)]
        self.taken.update(str(value.name) for value in made)
        if isinstance(attributes, dict):
            attributes = ir.convenience.convert_attributes(attributes)
        version = self.version if not domain else None
        node = ir.Node(domain, op_type, inputs, attributes, outputs=made, version=version, name=name)
        self.nodes.append(node)
        return node

    def copy(self, node: ir.Node, inputs: Sequence[ir.Value | None], outputs: int = 1) -> ir.Node:
        """The same operator on other inputs, under the same version."""
        made = self.node(node.op_type, inputs, tuple(node.attributes.values()), outputs, node.domain)
        made.version, made.overload = node.version, node.overload
        return made

    def fresh(self, stem: str) -> str:
        """A value name that nobody else has."""
        number = len(self.nodes)
        while (name := f"{self.prefix}/{stem}_{number}") in self.taken:
            number += 1
        self.taken.add(name)
        return name

    def apply(
        self, op_type: str, *inputs: Operand | None, kind: ir.DataType | None = None, **attributes: Any
    ) -> Term:
        """``op_type(inputs)`` of the default domain; without ``kind`` its type is that of the first term."""
        first = next(operand for operand in inputs if isinstance(operand, Term))
        values = [None if each is None else self.operand(each, first) for each in inputs]
        node = self.node(op_type, values, attributes)
        dtype = kind or first.value.dtype
        if dtype is not None:
            node.outputs[0].type = ir.TensorType(dtype)
        return Term(node.outputs[0], self)

    def operand(self, operand: Operand, like: Term) -> ir.Value:
        """Terms are their values, numbers constants of the type of ``like``, lists of int constants of int64."""
        if isinstance(operand, Term):
            return operand.value
        if isinstance(operand, float):
            return self.number(operand, like).value
        return self.constant(np.array(operand, np.int64)).value

    def constant(self, array: np.ndarray[Any, Any]) -> Term:
        """A Constant node."""
        node = self.node("Constant", (), {"value": ir.tensor(array)})
        node.outputs[0].type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        node.outputs[0].shape = ir.Shape(array.shape)
        return Term(node.outputs[0], self)

    def number(self, number: float, like: Term) -> Term:
        """A scalar of the type of ``like``."""
        dtype = like.value.dtype
        if dtype is None:
            return self.apply("CastLike", self.constant(np.array(number, np.float32)), like)
        return self.constant(np.array(number, dtype.numpy()))


class Term:
    """A value that can be computed with; operators make nodes in its builder."""

    def __init__(self, value: ir.Value, build: Builder) -> None:
        self.value, self.build = value, build

    def op(
        self, op_type: str, *others: Operand | None, kind: ir.DataType | None = None, **attributes: Any
    ) -> Term:
        """``op_type(self, others)``."""
        return self.build.apply(op_type, self, *others, kind=kind, **attributes)

    def __neg__(self) -> Term:
        return self.op("Neg")

    def __add__(self, other: Operand) -> Term:
        return self.op("Add", other)

    def __radd__(self, other: Operand) -> Term:
        return self.op("Add", other)

    def __sub__(self, other: Operand) -> Term:
        return self.op("Sub", other)

    def __rsub__(self, other: float) -> Term:
        return self.build.number(other, self).op("Sub", self)

    def __mul__(self, other: Operand) -> Term:
        return self.op("Mul", other)

    def __rmul__(self, other: Operand) -> Term:
        return self.op("Mul", other)

    def __truediv__(self, other: Operand) -> Term:
        return self.op("Div", other)

    def __rtruediv__(self, other: float) -> Term:
        return self.build.number(other, self).op("Div", self)

    def __matmul__(self, other: Term) -> Term:
        return self.op("MatMul", other)

    def __gt__(self, other: Operand) -> Term:
        return self.op("Greater", other, kind=ir.DataType.BOOL)

    def __lt__(self, other: Operand) -> Term:
        return self.op("Less", other, kind=ir.DataType.BOOL)

    def equals(self, other: Operand) -> Term:
        """Elementwise equality (``==`` stays identity, so that terms can be members of lists)."""
        return self.op("Equal", other, kind=ir.DataType.BOOL)

    def where(self, condition: Term, other: Operand) -> Term:
        """``self`` where the condition holds, else ``other``."""
        return self.build.apply("Where", condition, self, self._term(other), kind=self.value.dtype)

    def like(self, other: Term) -> Term:
        """In the element type of another term."""
        if self.value.dtype is not None and self.value.dtype == other.value.dtype:
            return self
        return self.op("CastLike", other, kind=other.value.dtype)

    def _term(self, other: Operand) -> Term:
        return Term(self.build.operand(other, self), self.build)

    # ---- shapes ----

    def shape(self) -> Term:
        """Its shape as a vector."""
        static = static_shape(self.value)
        if static is not None:
            return self.build.constant(np.array(static, np.int64))
        return self.op("Shape", kind=ir.DataType.INT64)

    def size(self) -> Term:
        """Its number of elements."""
        return self.op("Size", kind=ir.DataType.INT64)

    def rank(self) -> int | None:
        """Its rank, if known."""
        return None if self.value.shape is None else len(self.value.shape)

    def reshape(self, shape: Term | list[int]) -> Term:
        """Its elements in another shape."""
        return self.op("Reshape", shape, allowzero=1 if isinstance(shape, Term) else 0)

    def zeros(self) -> Term:
        """Zeros of its type and shape."""
        return self.filled(0.0)

    def filled(self, number: float) -> Term:
        """A constant of its type and shape."""
        return self.build.number(number, self).op("Expand", self.shape())

    def sum_to(self, other: Term) -> Term:
        """Undo broadcasting: add up what belongs to one element of ``other``, whose shape this one was brought to."""
        if same_shape(self.value, other.value):
            return self
        here, there = static_shape(self.value), static_shape(other.value)
        if here is not None and there is not None:
            missing = len(here) - len(there)
            axes = [*range(missing), *(missing + i for i, dim in enumerate(there) if dim == 1)]
            summed = self.op("ReduceSum", axes, keepdims=1) if axes else self
            return summed.reshape(other.shape()) if missing else summed
        shape = other.shape()
        ones = (self.shape().op("Size") - shape.op("Size")).op("Reshape", [1])
        padding = ones.op("ConstantOfShape", value=ir.tensor(np.array([1], np.int64)))
        broadcast = padding.op("Concat", shape, axis=0).equals([1]).op("NonZero", kind=ir.DataType.INT64)
        axes_of = broadcast.op("Reshape", [-1])
        return self.op("ReduceSum", axes_of, keepdims=1, noop_with_empty_axes=1).reshape(shape)


Operand: TypeAlias = "Term | float | list[int]"


def same_shape(one: ir.Value, other: ir.Value) -> bool:
    """True if the two shapes are known to be equal."""
    if one.shape is None or other.shape is None or len(one.shape) != len(other.shape):
        return False
    pairs = zip(one.shape, other.shape, strict=True)
    return all(a == b and (isinstance(a, int) or a.value is not None) for a, b in pairs)
