"""The plan stage: order of work, transfers and memory of every graph on every device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from .backend.blame import blame
from .backend.bound import Bound
from .backend.program import MemoryStep
from .memory.graph_memory import GraphMemory, Marker, graph_memory
from .partition.partitions import Partitioned
from .partition.placement import Placement, placement_of
from .partition.schedule import (
    HOST_PLACE,
    RunControl,
    RunPartition,
    Schedule,
    Transfer,
    all_schedules,
    schedule,
)


@dataclass(frozen=True)
class Plan:
    """Order of work, transfers and memory, for the main graph and all bodies."""

    partitioned: Partitioned
    schedule: Schedule
    memory: Mapping[Schedule, Mapping[int, GraphMemory]]

    @cached_property
    def placement(self) -> Placement:
        """Who runs each node, and why not elsewhere; made when somebody asks."""
        return placement_of(self.partitioned, self.schedule)

    def __str__(self) -> str:
        lines = [str(self.schedule)]
        for graph, places in self.memory.items():
            for place, memory in places.items():
                owner = "host" if place == HOST_PLACE else self.partitioned.bounds[place].device.name
                state = "" if memory.complete else "; the rest is planned for each shape as it comes"
                lines.append(f"memory of {graph.graph.graph.name!r} on {owner}: {memory.plan}{state}")
        return "\n".join([*lines, str(self.placement)])


def make_plan(partitioned: Partitioned) -> Plan:
    """Order the work and plan the memory of every graph on every device."""
    main = schedule(partitioned.main, partitioned.bounds)
    memory = {graph: _memory_of(graph, partitioned.bounds) for graph in all_schedules(main)}
    return Plan(partitioned, main, memory)


def _memory_of(graph: Schedule, bounds: Sequence[Bound]) -> dict[int, GraphMemory]:
    steps: dict[int, list[tuple[Marker, MemoryStep]]] = {HOST_PLACE: []}
    results = [value for value in graph.graph.graph.outputs if value is not None]
    leaving: dict[int, list[ir.Value]] = {HOST_PLACE: results}
    for index, action in enumerate(graph.actions):
        for place, marker, step in _memory_steps(index, action, bounds):
            steps.setdefault(place, []).append((marker, step))
    # Copies to a device may be under way until the end of the graph, where the run waits for all streams.
    sent = tuple(a.value for a in graph.actions if isinstance(a, Transfer) and a.from_place == HOST_PLACE)
    if sent:
        steps[HOST_PLACE].append((len(graph.actions), MemoryStep(None, sent, (), ())))
    return {
        place: graph_memory(
            found, leaving.get(place, ()), 64 if place < 0 else bounds[place].allocator.alignment
        )
        for place, found in steps.items()
    }


def _memory_steps(
    index: int, action: RunPartition | Transfer | RunControl, bounds: Sequence[Bound]
) -> Iterator[tuple[int, Marker, MemoryStep]]:
    """(place, marker, step) of one action. What a transfer brings to the host, NumPy allocates."""
    if isinstance(action, Transfer):
        value = (action.value,)
        yield action.from_place, index, MemoryStep(None, value, (), ())
        if action.to_place != HOST_PLACE:
            yield action.to_place, index, MemoryStep(None, (), value, ())
    elif isinstance(action, RunControl):
        captured = tuple(value for body in action.bodies.values() for value in body.graph.captures)
        read = tuple(value for value in action.node.inputs if value is not None) + captured
        yield HOST_PLACE, index, MemoryStep(action.node, read, (), tuple(action.node.outputs))
    else:
        provider = action.partition.provider
        assert provider is not None
        with blame(bounds[provider].name, "memory_steps", "plan"):
            found = tuple(bounds[provider].provider.memory_steps(action.partition.subgraph))
        for step in found:
            yield action.place, index if step.node is None else step.node, step
