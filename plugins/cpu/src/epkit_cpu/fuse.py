"""Groups elementwise nodes into chains: what one pass over memory can compute.

A node joins the chains that made its inputs if it has their shape, and if nobody has read from them yet: a chain
runs where its last node was.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from epkit.backend import Subgraph

from .lower.chain import Chain, Unsupported
from .lower.pointwise import Pointwise, emit_node, meaning_of
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
        self._known: dict[Hashable, tuple[bytes, tuple[tuple[int, int], ...]]] = {}
        self.chains: dict[ir.Node, Chain] = {}

    def add(self, view: View) -> bool:
        """True if the node is elementwise and in a chain now."""
        node, meaning = view.node, meaning_of(view)
        if meaning is None:
            self.read(node.inputs)
            return False
        shape = self._shapes.after(node)
        found = {
            c: c.nodes[-1] for value in node.inputs if value is not None and (c := self._open.get(value))
        }
        joined = [chain for chain, end in found.items() if self._shapes.of(end.outputs[0]) == shape]
        known = {chain: len(chain.nodes) for chain in joined}
        chain = _longest(joined, view, meaning)
        if chain is None:
            self.read(node.inputs)
            return False
        self._shapes.note(node, shape)
        for other, end in found.items():
            if other is not chain:
                self._close(other)  # merged, or read from outside
            if other in joined:  # what is left in the list is in the chain
                del self.chains[end]
        for item in chain.nodes[known.get(chain, 0) :]:
            self._open[item.outputs[0]] = chain
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
        attributes, over = self._packed(chain, results)
        return Step(
            "pointwise", tuple(chain.inputs), tuple(results), attributes, tuple(chain.nodes), over=over
        )

    def _packed(self, chain: Chain, results: Sequence[ir.Value]) -> tuple[bytes, tuple[tuple[int, int], ...]]:
        """What a chain does, and which inputs it may overwrite; found once for all that look like it."""
        look = chain.look(results)
        if look not in self._known:
            self._known[look] = chain.pack(results), chain.may_overwrite(results)
        return self._known[look]


def _longest(joined: list[Chain], view: View, meaning: Pointwise) -> Chain | None:
    """The first chain, with a node and as many of the others as may be, which are left in the list.

    Where there is none, a new one; None if the node is in no chain.
    """
    while True:
        chain = joined[0] if joined else Chain()
        before = chain.mark()
        try:
            for other in joined[1:]:
                chain.merge(other)
            emit_node(view, meaning, chain)
            if len(chain.inputs) > MOST_INPUTS:
                raise Unsupported
            return chain
        except Unsupported:
            chain.go_back(before)
            if not joined:
                return None
            joined.pop()
