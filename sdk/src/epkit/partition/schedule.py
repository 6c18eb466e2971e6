"""The order of work of one graph: partitions, the transfers between memories, control flow.

Over numbered slots.

A value has one slot for each memory that it is needed in. Memories are numbered like the session's
providers; HOST is the host's, which every provider with ``host_memory`` shares.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from ..backend.bound import Bound
from ..backend.subgraph import constant_of
from ..model.walk import bodies, writes
from .partitions import Partition, PartitionedGraph

HOST_PLACE = -1
ABSENT = -1


@dataclass(frozen=True)
class RunPartition:
    """Run a partition's program."""

    partition: Partition
    place: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Transfer:
    """Copy a value between two memories, one of which is the host's."""

    value: ir.Value
    source: int
    target: int
    from_place: int
    to_place: int


@dataclass(frozen=True)
class RunControl:
    """Run an If, Loop or Scan; ``captures`` feeds each body's captured values from this frame."""

    node: ir.Node
    opset: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    bodies: Mapping[str, Schedule]
    captures: Mapping[str, tuple[int, ...]]


Action = RunPartition | Transfer | RunControl


@dataclass(frozen=True, eq=False)
class Schedule:
    """What happens, in order.

    Attributes:
        inputs, outputs: slots of the graph's inputs and outputs, in the host's memory.
        captures: slots of the values captured from the enclosing graph.
        constants: slots of initializers that are needed at run time.
        last_uses: for each action, the slots that nobody needs after it.
    """

    graph: PartitionedGraph
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    captures: tuple[int, ...]
    constants: tuple[tuple[int, ir.Value], ...]
    actions: tuple[Action, ...]
    last_uses: tuple[tuple[int, ...], ...]
    n_slots: int

    def __str__(self) -> str:
        return "\n".join(_lines(self, 0))


def schedule(graph: PartitionedGraph, bounds: Sequence[Bound]) -> Schedule:
    """Order the work of a graph and of the bodies below it."""
    return _Scheduler(graph, bounds).build()


@dataclass
class _Scheduler:
    graph: PartitionedGraph
    bounds: Sequence[Bound]
    slots: dict[tuple[ir.Value, int], int] = field(default_factory=dict)
    home: dict[ir.Value, int] = field(default_factory=dict)
    constants: dict[int, ir.Value] = field(default_factory=dict)
    actions: list[Action] = field(default_factory=list)

    def build(self) -> Schedule:
        graph = self.graph.graph
        inputs = tuple(self._make(value, HOST_PLACE) for value in graph.inputs)
        captures = tuple(self._make(value, HOST_PLACE) for value in self.graph.captures)
        for part in self.graph.partitions:
            if part.provider is None:
                self._control(part.subgraph.nodes[0], part.subgraph.opset(part.subgraph.nodes[0]))
            else:
                self._partition(part, part.provider)
        outputs = tuple(self._need(value, HOST_PLACE) for value in graph.outputs if value is not None)
        return Schedule(
            self.graph,
            inputs,
            outputs,
            captures,
            tuple(self.constants.items()),
            tuple(self.actions),
            self._last_uses({*outputs, *self.constants}),
            len(self.slots),
        )

    def _make(self, value: ir.Value, place: int) -> int:
        self.home.setdefault(value, place)
        return self.slots.setdefault((value, place), len(self.slots))

    def _need(self, value: ir.Value, place: int) -> int:
        """The value's slot in a memory; adds the transfers that bring it there."""
        if (value, place) in self.slots:
            return self.slots[value, place]
        if value not in self.home:
            assert constant_of(value) is not None, f"{value.name} is used before it is made"
            slot = self._make(value, HOST_PLACE)
            self.constants[slot] = value
            return self._need(value, place)
        # Two devices exchange through the host: the only copies that every vendor supplies.
        origin = self._need(value, HOST_PLACE) if place != HOST_PLACE else self.slots[value, self.home[value]]
        from_place = HOST_PLACE if place != HOST_PLACE else self.home[value]
        target = self.slots.setdefault((value, place), len(self.slots))
        self.actions.append(Transfer(value, origin, target, from_place, place))
        return target

    def _place(self, provider: int) -> int:
        return HOST_PLACE if self.bounds[provider].device.host_memory else provider

    def _partition(self, part: Partition, provider: int) -> None:
        place = self._place(provider)
        inputs = tuple(self._need(value, place) for value in part.subgraph.inputs)
        outputs = tuple(self._make(value, place) for value in part.subgraph.outputs)
        self.actions.append(RunPartition(part, place, inputs, outputs))

    def _control(self, node: ir.Node, opset: int) -> None:
        inputs = tuple(ABSENT if value is None else self._need(value, HOST_PLACE) for value in node.inputs)
        inner: dict[str, Schedule] = {}
        captures: dict[str, tuple[int, ...]] = {}
        for name, _ in bodies(node):
            body = self.graph.bodies[node, name]
            captures[name] = tuple(self._need(value, HOST_PLACE) for value in body.captures)
            inner[name] = schedule(body, self.bounds)
        named = set(writes(node))
        outputs = tuple(self._make(value, HOST_PLACE) if value in named else ABSENT for value in node.outputs)
        self.actions.append(RunControl(node, opset, inputs, outputs, inner, captures))

    def _last_uses(self, keep: set[int]) -> tuple[tuple[int, ...], ...]:
        last: dict[int, int] = {}
        for index, action in enumerate(self.actions):
            for slot in touched(action):
                last[slot] = index
        result: list[list[int]] = [[] for _ in self.actions]
        for slot, index in last.items():
            if slot not in keep and slot != ABSENT:
                result[index].append(slot)
        return tuple(tuple(sorted(slots)) for slots in result)


def all_schedules(graph: Schedule) -> Iterator[Schedule]:
    """The schedule, and those of all bodies below it."""
    yield graph
    for action in graph.actions:
        if isinstance(action, RunControl):
            for body in action.bodies.values():
                yield from all_schedules(body)


def touched(action: Action) -> tuple[int, ...]:
    """Every slot that an action reads or writes."""
    if isinstance(action, Transfer):
        return (action.source, action.target)
    if isinstance(action, RunPartition):
        return (*action.inputs, *action.outputs)
    return (*action.inputs, *action.outputs, *(slot for slots in action.captures.values() for slot in slots))


def _lines(plan: Schedule, depth: int) -> list[str]:
    pad = "  " * depth
    lines = [f"{pad}graph {plan.graph.graph.name!r}: {plan.n_slots} slots, inputs {list(plan.inputs)}"]
    for action in plan.actions:
        if isinstance(action, Transfer):
            lines.append(
                f"{pad}  copy {action.value.name} {action.source} -> {action.target} ({_route(action)})"
            )
        elif isinstance(action, RunPartition):
            names = ", ".join(str(node.name) for node in action.partition.subgraph.nodes)
            lines.append(
                f"{pad}  run {action.partition.name} {list(action.inputs)} -> {list(action.outputs)}: {names}"
            )
        else:
            lines.append(
                f"{pad}  {action.node.op_type} {action.node.name} {list(action.inputs)} -> "
                f"{list(action.outputs)}"
            )
            for body in action.bodies.values():
                lines += _lines(body, depth + 2)
    return [*lines, f"{pad}  outputs {list(plan.outputs)}"]


def _route(action: Transfer) -> str:
    names = {HOST_PLACE: "host"}
    return " to ".join(
        names.get(place, f"provider {place}") for place in (action.from_place, action.to_place)
    )
