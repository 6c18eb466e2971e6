"""Groups elementwise nodes into chains: what one pass over memory can compute.

A node joins the chains that made its inputs if it has their shape, and if nobody has read from them yet: a chain
runs where its last node was.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from epkit.backend import Subgraph

from .lower.pointwise import Chain, Unsupported, emit_node, meaning_of
from .lower.step import Operand, Step, View

if TYPE_CHECKING:
    import onnx_ir as ir

MOST_INPUTS = 24


class Shapes:
    """Which values have provably the same shape: each gets a class."""

    def __init__(self, graph: Subgraph) -> None:
        self._graph = graph
        self._classes: dict[ir.Value, object] = {}

    def of(self, value: ir.Value) -> object:
        """The class of a value; values of one class have one shape in every run."""
        if value not in self._classes:
            self._classes[value] = _inferred(value) or object()
        return self._classes[value]

    def note(self, node: ir.Node, found: object) -> None:
        """Keep what :meth:`after` found for a node."""
        self._classes[node.outputs[0]] = found

    def after(self, node: ir.Node) -> object:
        """The class of an elementwise node's result; it may be that of an input."""
        known: object = _inferred(node.outputs[0])
        if known is None:
            inputs = [value for value in node.inputs if value is not None]
            wide = [value for value in inputs if not self._gives_way(value, inputs)]
            classes = {self.of(value) for value in wide}
            known = classes.pop() if len(classes) == 1 else object()
        return known

    def _gives_way(self, value: ir.Value, inputs: Sequence[ir.Value]) -> bool:
        """True if broadcasting with another input surely leaves that one's shape."""
        if value.shape is None or any(not isinstance(d, int) for d in value.shape):
            return False
        dims = [int(d) for d in value.shape if isinstance(d, int)]
        for other in inputs:
            if other is value or other.shape is None or len(other.shape) < len(dims):
                continue
            theirs = tuple(other.shape)[len(other.shape) - len(dims) :]
            if list(theirs) == dims and len(other.shape) == len(dims):
                continue  # the same: neither gives way, and their classes agree
            if all(d == 1 or d == t for d, t in zip(dims, theirs, strict=True)):
                return True
        return False


def _inferred(value: ir.Value) -> tuple[Any, ...] | None:
    """The inferred shape as a class, if every dimension is a number or has a name."""
    if value.shape is None:
        return None
    dims = value.shape.dims  # of numbers and names, which are equal if they have one name
    for dim in dims:
        if not isinstance(dim, int) and dim.value is None:
            return None
    return dims


class Fuser:
    """Takes the nodes in order; gives the chains as steps."""

    def __init__(self, graph: Subgraph) -> None:
        self._graph = graph
        self._shapes = Shapes(graph)
        self._open: dict[ir.Value, Chain] = {}
        self.chains: dict[ir.Node, Chain] = {}

    def add(self, view: View) -> bool:
        """True if the node is elementwise and in a chain now."""
        node = view.node
        found = {id(c): c for value in node.inputs if value is not None and (c := self._open.get(value))}
        joined: list[Chain] = []
        wanted: object = None
        if meaning_of(view) is not None:
            wanted = self._shapes.after(node)
            joined = [c for c in found.values() if self._shapes.of(c.nodes[-1].outputs[0]) == wanted]
        chain = _longest(joined, view)
        if chain is None:
            self.read(node.inputs)
            return False
        self._shapes.note(node, wanted)
        for other in found.values():
            self._close(other)  # merged, or read from outside
            if other in joined:
                del self.chains[other.nodes[-1]]
        self._open.update((item.outputs[0], chain) for item in chain.nodes)
        self.chains[node] = chain
        return True

    def read(self, values: Iterable[Operand]) -> None:
        """Somebody outside reads these values: chains that make them are complete."""
        for value in values:
            if value is not None and not isinstance(value, np.ndarray) and value in self._open:
                self._close(self._open[value])

    def _close(self, chain: Chain) -> None:
        for node in chain.nodes:
            if self._open.get(node.outputs[0]) is chain:
                del self._open[node.outputs[0]]

    def step(self, node: ir.Node, wanted: Container[ir.Value]) -> Step | None:
        """The chain that runs at a node, with the results that are wanted; None: another node's runs it, or none."""
        chain = self.chains.get(node)
        if chain is None:
            return None
        results = [item.outputs[0] for item in chain.nodes if item.outputs[0] in wanted]
        if not results:
            return None
        return Step(
            "pointwise",
            tuple(chain.inputs),
            tuple(results),
            chain.pack(results),
            tuple(chain.nodes),
            over=chain.may_overwrite(results),
        )


def _longest(joined: list[Chain], view: View) -> Chain | None:
    """A node in one chain with as many of those before it as may be, which are left in the list; None: in none."""
    while True:
        try:
            return _merged(joined, view)
        except Unsupported:
            if not joined:
                return None
            joined.pop()


def _merged(chains: Sequence[Chain], view: View) -> Chain:
    """One chain of several, or of none, and a node that reads from each.

    Raises:
        Unsupported: if it would be too long.
    """
    result = chains[0].copy() if chains else Chain()
    for other in chains[1:]:
        result.merge(other)
    emit_node(view, result)
    if len(result.inputs) > MOST_INPUTS:
        raise Unsupported
    return result
