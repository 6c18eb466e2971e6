"""Constants that a model stores quantised: their numbers are constants too, made when somebody asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
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
        results: outputs, of this graph and of bodies, which are made at run time.
        made: the arrays that have been asked for.
    """

    compute: Compute = field(repr=False, kw_only=True)
    results: frozenset[ir.Value] = field(repr=False, kw_only=True)
    made: dict[ir.Value, Array] = field(repr=False, kw_only=True, default_factory=dict)

    @classmethod
    def of(cls, graph: Subgraph, compute: Compute) -> Dequantised:
        """The same subgraph, seen this way."""
        return cls(**_parts(graph), compute=compute, results=frozenset(results_of(graph)))

    def bodies(self, node: ir.Node) -> dict[str, Subgraph]:
        """As for any subgraph; the same values are constants in them."""
        return {name: replace(self, **_parts(body)) for name, body in super().bodies(node).items()}

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
        if node.op_type != "DequantizeLinear" or node.domain or node.outputs[0] in self.results:
            return False
        return all(v is None or super(Dequantised, self).constant(v) is not None for v in node.inputs)


def results_of(graph: Subgraph) -> set[ir.Value]:
    """The outputs of a subgraph, and of all bodies in it."""
    found = set(graph.outputs)
    for node in graph.nodes:
        for body in graph.bodies(node).values():
            found |= results_of(body)
    return found


def _parts(graph: Subgraph) -> dict[str, Any]:
    return {item.name: getattr(graph, item.name) for item in fields(Subgraph)}
