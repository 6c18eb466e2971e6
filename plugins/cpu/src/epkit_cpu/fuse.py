"""Groups elementwise nodes into chains: what one pass over memory can compute.

A node joins the chains that made its inputs if it has their shape, and if nobody has read from them yet: a chain
runs where its last node was.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from epkit.backend import Subgraph

from .lower.chain import MOST_INSTRUCTIONS, Chain, Unsupported
from .lower.pointwise import Pointwise, emit_node, meaning_of
from .lower.step import Operand, Step, View
from .lower.types import kind_of

if TYPE_CHECKING:
    import onnx_ir as ir

MOST_INPUTS = 24


class Shapes:
    """Which values have provably the same shape: each gets a class."""

    def __init__(self, graph: Subgraph) -> None:
        self._graph = graph
        self._classes: dict[ir.Value, object] = {}
        self._inferred: dict[int, object] = {}
        """By the identity of shapes, of which the values of a model have a few."""

    def of(self, value: ir.Value) -> object:
        """The class of a value; values of one class have one shape in every run."""
        if value not in self._classes:
            self._classes[value] = self._of_shape(value.shape) or object()
        return self._classes[value]

    def note(self, node: ir.Node, found: object) -> None:
        """Keep what :meth:`after` found for a node."""
        self._classes[node.outputs[0]] = found

    def after(self, node: ir.Node) -> object:
        """The class of an elementwise node's result; it may be that of an input."""
        known = self._of_shape(node.outputs[0].shape)
        if known is None:
            inputs = [value for value in node.inputs if value is not None]
            wide = [value for value in inputs if not self._gives_way(value, inputs)]
            classes = {self.of(value) for value in wide}
            known = classes.pop() if len(classes) == 1 else object()
        return known

    def _of_shape(self, shape: ir.Shape | None) -> object:
        """A shape as a class, if every dimension is a number or has a name."""
        key = id(shape)
        if key not in self._inferred:
            self._inferred[key] = None if shape is None else _named(shape.dims)
        return self._inferred[key]

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


def _named(dims: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Dimensions, of which equal names are equal; None if one has no name."""
    return None if any(not isinstance(dim, int) and dim.value is None for dim in dims) else dims


class Part(NamedTuple):
    """A node in a chain.

    Attributes:
        look: equal for nodes of which a chain does the same.
        operands: what it reads, each once.
        size: how many instructions it is.
    """

    view: View
    meaning: Pointwise
    look: int
    operands: Sequence[ir.Value]
    size: int


@dataclass(eq=False)
class Group:
    """Nodes that become one chain, in an order in which they can run; it runs where the last one was.

    Attributes:
        size: how many instructions they are.
        reads: how many operands they have, those that others of them make and those of several counted, too.
    """

    parts: list[Part]
    size: int = 0
    reads: int = 0

    @property
    def end(self) -> ir.Node:
        """The last node."""
        return self.parts[-1].view.node


class Fuser:
    """Takes the nodes in order; gives the chains as steps.

    Nodes that look alike are tried once, and chains that do the same are encoded once.
    """

    def __init__(self, graph: Subgraph) -> None:
        self._shapes = Shapes(graph)
        self._open: dict[ir.Value, Group] = {}
        self._ends: dict[ir.Node, Group] = {}
        self._plain: dict[Hashable, tuple[Pointwise, int, int]] = {}
        self._looks: dict[Hashable, int] = {}
        self._packed: dict[Hashable, tuple[bytes, tuple[tuple[int, int], ...]]] = {}

    def add(self, view: View) -> bool:
        """True if the node is elementwise and in a chain now."""
        node, part = view.node, self._part(view)
        if part is None:
            self.read(node.inputs)
            return False
        shape = self._shapes.after(node)
        found = dict.fromkeys([group for value in part.operands if (group := self._open.get(value))])
        joined = [group for group in found if self._shapes.of(group.end.outputs[0]) == shape]
        made, merged = _joined(joined, part)
        self._shapes.note(node, shape)
        for group in found:
            if group is not made:
                self._close(group)  # merged, or read from outside
        for group in merged:
            del self._ends[group.end]
        for each in [part for group in merged[1:] for part in group.parts]:
            made.parts.append(each)
            self._open[each.view.node.outputs[0]] = made
        made.parts.append(part)
        self._open[node.outputs[0]] = made
        self._ends[node] = made
        return True

    def _part(self, view: View) -> Part | None:
        """The node as a part of a chain, if it can be one."""
        node = view.node
        operands = [value for value in node.inputs if value is not None]
        values = [*node.outputs, *operands]
        key: Hashable = None
        if (
            len(node.outputs) == 1 and values[0].name and len(set(values)) == 1 + len(node.inputs)
        ):  # each once
            key = node.domain, node.op_type, node.version, *map(kind_of, values)
            if (known := self._plain.get(key)) is not None:
                return Part(view, known[0], known[1], operands, known[2])
        meaning = meaning_of(view)
        if meaning is None:
            return None
        chain = Chain()
        try:
            emit_node(view, meaning, chain)
        except Unsupported:
            return None
        if len(chain.inputs) > MOST_INPUTS:
            return None
        look = self._looks.setdefault(chain.look(), len(self._looks))
        if key is not None and meaning.is_plain:
            self._plain[key] = meaning, look, len(chain.instructions)
        return Part(view, meaning, look, chain.inputs, len(chain.instructions))

    def read(self, values: Iterable[Operand]) -> None:
        """Somebody outside reads these values: chains that make them are complete."""
        for value in values:
            if value is not None and not isinstance(value, np.ndarray) and value in self._open:
                self._close(self._open[value])

    def _close(self, group: Group) -> None:
        for part in group.parts:
            value = part.view.node.outputs[0]
            if self._open.get(value) is group:
                del self._open[value]

    def step(self, node: ir.Node, wanted: Container[ir.Value]) -> Step | None:
        """The chain that runs at a node, with the results that are wanted; None: another node's runs it, or none."""
        group = self._ends.get(node)
        if group is None:
            return None
        nodes = tuple([part.view.node for part in group.parts])
        results = [made.outputs[0] for made in nodes if made.outputs[0] in wanted]
        if not results:
            return None
        inputs, look = _look(group, results)
        if look not in self._packed:
            self._packed[look] = _pack(group, results)
        attributes, over = self._packed[look]
        return Step("pointwise", inputs, tuple(results), attributes, nodes, over=over)


def _joined(groups: list[Group], part: Part) -> tuple[Group, list[Group]]:
    """The first group with as many of the others, and then the part, as one chain may have; all groups in it.

    Where there is none, a new one.
    """
    while groups and not _fit(groups, part):
        groups.pop()
    made = groups[0] if groups else Group([])
    made.size = part.size + sum([group.size for group in groups])
    made.reads = len(part.operands) + sum([group.reads for group in groups])
    return made, groups


def _fit(groups: list[Group], part: Part) -> bool:
    if part.size + sum([group.size for group in groups]) > MOST_INSTRUCTIONS:
        return False
    if len(part.operands) + sum([group.reads for group in groups]) <= MOST_INPUTS:
        return True
    parts = [*(each for group in groups for each in group.parts), part]
    made = {each.view.node.outputs[0] for each in parts}
    return len({value for each in parts for value in each.operands} - made) <= MOST_INPUTS


def _look(group: Group, results: Sequence[ir.Value]) -> tuple[tuple[ir.Value, ...], Hashable]:
    """What a group reads, in order; and what is equal for groups of which the chains do the same."""
    numbers: dict[ir.Value, int] = {}
    inputs: list[ir.Value] = []
    parts: list[tuple[int, ...]] = []
    for part in group.parts:
        for value in part.operands:
            if value not in numbers:
                numbers[value] = len(numbers)
                inputs.append(value)
        parts.append((part.look, *[numbers[value] for value in part.operands]))
        numbers[part.view.node.outputs[0]] = len(numbers)
    return tuple(inputs), (*parts, None, *[numbers[value] for value in results])


def _pack(group: Group, results: Sequence[ir.Value]) -> tuple[bytes, tuple[tuple[int, int], ...]]:
    """What the chain of a group does, and which inputs it may overwrite."""
    chain = Chain()
    for part in group.parts:
        emit_node(part.view, part.meaning, chain)
    return chain.pack(results), chain.may_overwrite(results)
