"""A unit of work: the nodes that the machine runs as one operation on integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .machine import Machine
from .quant import Array, QTensor, Unsupported
from .schedule import Stream
from .tile import Finish, Tail, View
from .tiles import Product

if TYPE_CHECKING:
    import onnx_ir as ir

Operand = QTensor | Array | None
"""An input: quantised, constant as it is, or absent."""


@dataclass(frozen=True, eq=False)
class Unit:
    """An operator on quantised tensors.

    Attributes:
        kind: the key of its family, such as ``"Conv"``.
        node: the node that names it in reports; ``nodes``: all that it covers.
        inputs, outputs: operands in the order of the operator.
        attributes: of the operator; the family's check puts what it derived beside them.
        limits: range of the first output's integers (of an activation that was merged).
    """

    kind: str
    node: ir.Node
    nodes: tuple[ir.Node, ...]
    inputs: tuple[Operand, ...]
    outputs: tuple[QTensor, ...]
    attributes: Mapping[str, Any]
    limits: tuple[int, int] = (0, 0)
    opset: int = 1
    operator: tuple[str, str] = field(default=("", ""))

    def quantised(self, index: int) -> QTensor:
        """An input that must be quantised.

        Raises:
            Unsupported: if it is not.
        """
        found = self.inputs[index] if index < len(self.inputs) else None
        if isinstance(found, QTensor):
            return found
        raise Unsupported("dtype", f"input {index} is not quantised", "int8 or uint8", "float32")

    @property
    def output(self) -> QTensor:
        """The only output."""
        return self.outputs[0]

    @property
    def out(self) -> dict[str, int]:
        """Operands of the rounding step: zero point, range, type."""
        low, high = self.limits
        return {"zero": self.output.z, "low": low, "high": high, "y_type": self.output.kind}


Views = Callable[[QTensor], View]
"""Where a tensor, or a constant, lies in DRAM."""


@dataclass(frozen=True)
class Family:
    """How a kind of unit is checked and lowered.

    Attributes:
        check: raises Unsupported; returns the unit with what it derived among the attributes.
        lower: emits the unit; given the bytes of scratchpad that fused nodes want for each element of the output.
        product: for units on the array or alike, what the search of tiles needs; others may be fused to them.
        tail: emits the unit on a tile that is in the scratchpad already, so that it can be fused to the one before.
    """

    check: Callable[[Unit, Machine], Unit]
    lower: Callable[[Unit, Stream, Views, Finish, int], None]
    product: Callable[[Unit], Product] | None = None
    tail: Callable[[Unit, Stream, Views, QTensor, int], Tail] | None = None


def require(condition: object, code: str, reason: str, constraint: str = "", actual: object = "") -> None:
    """Raise Unsupported unless a condition holds."""
    if not condition:
        raise Unsupported(code, reason, constraint, str(actual))


def one_scale(*tensors: QTensor) -> None:
    """Raise Unsupported for a tensor with a scale for each channel: only weights may have that."""
    for q in tensors:
        told = f"{q.value.name} has {q.scale.size} scales; only weights may have one for each channel"
        require(q.scale.size == 1, "constant", told, "one scale")


def bytes_only(*tensors: QTensor) -> None:
    """Raise Unsupported for a tensor of 16 bits."""
    for q in tensors:
        require(q.size == 1, "dtype", f"{q.value.name} is {q.dtype}", "int8 or uint8", q.dtype)
