"""What lowerings see of a node, and what they make of it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from epkit.backend import Subgraph, static_shape
from epkit.kernels.attributes import attribute_values

from ..native import FLOAT32
from ..pages import let_go
from .types import kind_of

if TYPE_CHECKING:
    import onnx_ir as ir

Operand: TypeAlias = Any
"""An ``ir.Value``, a constant array that a lowering made, a ``layout.Blocked`` value, or None where absent."""


@dataclass(frozen=True)
class Image:
    """What the layout needs to know of a step that works on images.

    Attributes:
        kind: "conv", which makes blocked images; "depthwise" or "pool", which keep the layout; "global".
        channels, filters: of the input and of the result.
        attributes: makes the step's attributes for a blocked input (0 or 1) and output.
        planar: of a convolution: its result, and what is added to it, are planar.
    """

    kind: str
    channels: int
    filters: int
    attributes: Callable[[int, int], bytes]
    planar: bool = False


@dataclass(frozen=True)
class Body:
    """A body of If, Loop or Scan: the attribute that it is, the graph, and its steps."""

    name: str
    graph: Subgraph
    steps: Sequence[Step]


@dataclass(eq=False)  # not frozen, for the time that takes: as with View below
class Step:
    """One call of a native kernel; it does not change.

    Attributes:
        kernel: its name in the library's table.
        inputs: values, constants that the lowering made, or None where one is absent.
        outputs: values; None where an output is not wanted.
        attributes: bytes in the layout that the kernel reads.
        nodes: the nodes that the step stands for; the last one is where it runs.
        alias: True if the output may be the first input's memory under another shape.
        image: what the layout needs to know, for steps that work on images.
        over: pairs (output, input): the output may be written over the input, of the same size, once nobody needs it.
        joins: of a Concat, the axis: where its inputs follow each other in the result, they are written there.
        bodies: of control flow, which has no kernel; the inputs are then all that they read, too.
    """

    kernel: str
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    attributes: bytes = b""
    nodes: tuple[ir.Node, ...] = ()
    alias: bool = False
    image: Image | None = None
    over: tuple[tuple[int, int], ...] = ()
    joins: int | None = None
    bodies: tuple[Body, ...] = ()


Prepare = Callable[..., "np.ndarray[Any, Any]"]
"""Runs a kernel on constants, once, at compile time: its name, its attributes, the constants; gives bytes."""


def _unprepared(kernel: str, attributes: bytes, *arrays: np.ndarray[Any, Any] | None) -> np.ndarray[Any, Any]:
    raise NotImplementedError("this view is for looking only")


@dataclass(
    eq=False
)  # not frozen: there is one for each node, and frozen ones take five times as long to make
class View:
    """A node with what is known about it; it does not change.

    Attributes:
        node: the node.
        graph: the partition that it is in.
        order: the positions of the partition's nodes.
        prepare: runs a kernel on a constant.
        narrow: of products with constant weights: FLOAT32, or a place in FORMS (``native``).
        halves: float16 is shown as float32, and so are float16 constants: for steps that ``halves`` wraps.
    """

    node: ir.Node
    graph: Subgraph
    order: Mapping[ir.Node, int] = field(repr=False, default_factory=dict)
    prepare: Prepare = field(repr=False, default=_unprepared)
    narrow: int = FLOAT32
    halves: bool = False

    @property
    def op(self) -> str:
        """The operator's name."""
        return str(self.node.op_type)

    @property
    def opset(self) -> int:
        """The opset version that the node is read under."""
        return self.graph.opset(self.node)

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The node's attributes as Python values; defaults are not filled in."""
        return dict(attribute_values(self.node))

    @property
    def inputs(self) -> Sequence[ir.Value | None]:
        """The inputs; None where an optional one is absent."""
        return tuple(self.node.inputs)

    @property
    def outputs(self) -> tuple[ir.Value | None, ...]:
        """The outputs; None where one is not named."""
        return tuple(value if value.name else None for value in self.node.outputs)

    def input(self, index: int) -> ir.Value | None:
        """An input, None if it is absent or not there."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def kind(self, value: ir.Value | None) -> str:
        """The element type of a value, "" if unknown or absent."""
        kind = kind_of(value)
        return "float32" if self.halves and kind == "float16" else kind

    def type(self, index: int) -> str:
        """The element type of an input, "" if unknown or absent."""
        return self.kind(self.input(index))

    def types(self) -> list[str]:
        """The element types of all inputs that are there."""
        return [self.kind(value) for value in self.node.inputs if value is not None]

    def result_type(self, index: int = 0) -> str:
        """The element type of an output."""
        return self.kind(self.node.outputs[index])

    def shape(self, index: int) -> tuple[int, ...] | None:
        """The shape of an input if it is known in whole."""
        return static_shape(self.input(index))

    def rank_of_result(self) -> int | None:
        """The rank of the first output if it is known."""
        shape = self.node.outputs[0].shape
        return None if shape is None else len(shape)

    def rank(self, index: int) -> int | None:
        """The rank of an input if it is known."""
        value = self.input(index)
        return None if value is None or value.shape is None else len(value.shape)

    def constant(self, index: int) -> np.ndarray[Any, Any] | None:
        """An input's value if it is known at compile time."""
        return self.value_of(self.input(index))

    def value_of(self, value: ir.Value | None) -> np.ndarray[Any, Any] | None:
        """A value if it is known at compile time."""
        found = self.graph.constant(value)
        if not self.halves or found is None or found.dtype != np.float16:
            return found
        widened = found.astype(np.float32)
        let_go(found)
        return widened

    def step(
        self,
        kernel: str,
        attributes: bytes = b"",
        inputs: Iterable[Operand] | None = None,
        alias: bool = False,
    ) -> Step:
        """A call of a native kernel in the node's place."""
        given = tuple(self.node.inputs) if inputs is None else tuple(inputs)
        return Step(kernel, given, self.outputs, attributes, (self.node,), alias)


Lowering = Callable[[View], "Step | None"]
"""Makes a native step of a node, or None: the node stays with its portable kernel."""


def longs(*numbers: int) -> bytes:
    """int64 numbers as the kernels read them."""
    return struct.pack(f"<{len(numbers)}q", *numbers)


def counted(numbers: Sequence[int]) -> bytes:
    """A count and that many int64 numbers."""
    return longs(len(numbers), *numbers)
