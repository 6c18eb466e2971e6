"""Constants that a model stores quantised: their numbers are constants too, made when somebody asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from epkit.backend import Subgraph

if TYPE_CHECKING:
    import onnx_ir as ir

Array = np.ndarray[Any, Any]
Compute = Callable[["ir.Node", list[Any]], Array]


@dataclass(frozen=True)
class Dequantised(Subgraph):
    """A subgraph in which DequantizeLinear of constants is a constant.

    Attributes:
        compute: the result of a node for given inputs.
        made: the arrays that have been asked for.
    """

    compute: Compute = field(repr=False, kw_only=True)
    made: dict[ir.Value, Array] = field(repr=False, kw_only=True, default_factory=dict)

    @classmethod
    def of(cls, graph: Subgraph, compute: Compute) -> Dequantised:
        """The same subgraph, seen this way."""
        return cls(
            graph.name, graph.nodes, graph.inputs, graph.outputs, graph.opsets, graph.depth, compute=compute
        )

    def constant(self, value: ir.Value | None) -> Array | None:
        """As for any subgraph, and the numbers of constant codes."""
        if value is None or (found := super().constant(value)) is not None:
            return None if value is None else found
        node = value.producer()
        if node is None or not self.is_made(node):
            return None
        if value not in self.made:
            self.made[value] = self.compute(node, [super(Dequantised, self).constant(v) for v in node.inputs])
        return self.made[value]

    def is_made(self, node: ir.Node) -> bool:
        """True if the node's result is such a constant."""
        if node.op_type != "DequantizeLinear" or node.domain or node.outputs[0] in self.outputs:
            return False
        return all(v is None or super(Dequantised, self).constant(v) is not None for v in node.inputs)
