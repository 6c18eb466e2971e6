"""What a rule sees: one node on the way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import onnx_ir as ir

from ...kernels.attributes import attribute_value
from .term import Builder, Term


class NoRule(Exception):
    """The node cannot be differentiated, for the reason given."""


@dataclass(frozen=True)
class Step:
    """A node, the version that it is written against, and the gradients of its outputs."""

    node: ir.Node
    opset: int
    grads: Sequence[Term | None]
    build: Builder

    @property
    def inputs(self) -> tuple[Term | None, ...]:
        """All inputs; None for one that is left out."""
        return tuple(None if value is None else self.build.term(value) for value in self.node.inputs)

    def has(self, index: int) -> bool:
        """Whether an input is given."""
        return len(self.node.inputs) > index and self.node.inputs[index] is not None

    def x(self, index: int = 0) -> Term:
        """An input."""
        value = self.node.inputs[index] if self.has(index) else None
        if value is None:
            raise NoRule(f"its input {index} is left out")
        return self.build.term(value)

    def y(self, index: int = 0) -> Term:
        """An output."""
        return self.build.term(self.node.outputs[index])

    def g(self, index: int = 0) -> Term:
        """The gradient of an output; zeros where nothing depends on it."""
        grad = self.grads[index]
        return self.y(index).zeros() if grad is None else grad

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute as a plain value."""
        attribute = self.node.attributes.get(name)
        if attribute is None:
            return default
        if attribute.is_ref():
            raise NoRule(f"its attribute {name!r} refers to one of a function")
        return attribute_value(attribute)

    def rank(self, index: int = 0) -> int:
        """The rank of an input, which the rule needs."""
        rank = self.x(index).rank()
        if rank is None:
            raise NoRule(f"the rank of {self.x(index).value.name} is unknown")
        return rank


Grads: TypeAlias = "Sequence[Term | None]"
Rule: TypeAlias = Callable[[Step], Grads]
