"""Executes the schedule of one graph: a flat list of actions over a frame of slots."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ..backend.bound import Bound
from ..backend.budget import Budget
from ..backend.kernel_provider import describe_argument
from ..backend.memory import HostAllocator, Tensor
from ..backend.program import Program
from ..backend.subgraph import constant_of
from ..errors import BrokenProviderError, EpkitError, RunError, Where
from ..memory.arena import Arena
from ..memory.graph_memory import GraphMemory
from ..model.walk import nodes_inside
from ..partition.schedule import HOST_PLACE, Action, RunControl, RunPartition, Schedule, Transfer
from .context import Context, RunState, located, name_parts
from .control import CONTROL
from .on_device import DeviceArray
from .replay import Replays
from .space import Lease, Space

Frame = list[Any]
Leases = dict[int, Lease]


class Executor:
    """Runs one graph; bodies of control flow have executors of their own below it."""

    def __init__(
        self,
        schedule: Schedule,
        bounds: Sequence[Bound],
        programs: Mapping[str, Program],
        memory: Mapping[Schedule, Mapping[int, GraphMemory]],
        arenas: Mapping[int, Arena],
        replays: Mapping[str, Replays],
    ) -> None:
        self.schedule = schedule
        self._bounds = bounds
        self._programs = programs
        self._replays = replays
        self.spaces = {place: Space(found, arenas[place]) for place, found in memory[schedule].items()}
        self._static = all(space.memory.complete for space in self.spaces.values())
        self._host_read = _read_on_host(schedule)
        self._template: Frame = [None] * schedule.n_slots
        for slot, value in schedule.constants:
            self._template[slot] = constant_of(value)
        self._bodies = {
            (index, name): Executor(body, bounds, programs, memory, arenas, replays)
            for index, action in enumerate(schedule.actions)
            if isinstance(action, RunControl)
            for name, body in action.bodies.items()
        }

    def all_spaces(self) -> list[Space]:
        """The spaces of this graph and of all bodies."""
        return [
            *self.spaces.values(),
            *(space for body in self._bodies.values() for space in body.all_spaces()),
        ]

    def run(
        self,
        state: RunState,
        inputs: Sequence[Any],
        captures: Sequence[Any] = (),
        kept: frozenset[int] = frozenset(),
    ) -> list[Any]:
        """Compute the graph's outputs from its inputs and captured values.

        All are host values, but for inputs that lie on a device and outputs that stay there (``kept``: indices).
        """
        frame = self._template.copy()
        for slot, value in zip(
            (*self.schedule.inputs, *self.schedule.captures), (*inputs, *captures), strict=True
        ):
            brought = isinstance(value, DeviceArray) and slot in self._host_read
            frame[slot] = self._brought(value, state) if brought else value
        key = () if self._static else tuple(_shape_of(value) for value in (*inputs, *captures))
        staying = self._staying(kept) if kept else {}
        leases = {
            place: space.open(key, staying.get(place, frozenset())) for place, space in self.spaces.items()
        }
        complete = False
        try:
            for index, action in enumerate(self.schedule.actions):
                state.check_cancelled()
                self._act(index, action, frame, state, leases)
                for slot in self.schedule.last_uses[index]:
                    frame[slot] = None
                for lease in leases.values():
                    lease.release(index)
            results = [frame[slot] for slot in self.schedule.outputs]
            complete = True
            return results
        finally:
            _finish(state, leases, complete)

    def _staying(self, kept: frozenset[int]) -> dict[int, frozenset[ir.Value]]:
        """By device, the values of outputs that are not copied to the host; those that it needs itself are."""
        slots = {self.schedule.outputs[index] for index in kept} - self._host_read
        found: dict[int, set[ir.Value]] = {}
        for action in self.schedule.actions:
            if isinstance(action, Transfer) and action.to_place == HOST_PLACE and action.target in slots:
                found.setdefault(action.from_place, set()).add(action.value)
        return {place: frozenset(values) for place, values in found.items()}

    def _act(self, index: int, action: Action, frame: Frame, state: RunState, leases: Leases) -> None:
        if isinstance(action, RunPartition):
            self._run_partition(action, frame, state, leases[action.place])
        elif isinstance(action, Transfer):
            self._transfer(action, frame, state, leases)
        else:
            self._run_control(index, action, frame, state)

    # ---- partitions ----

    def _run_partition(self, action: RunPartition, frame: Frame, state: RunState, lease: Lease) -> None:
        part = action.partition
        assert part.provider is not None
        bound = self._bounds[part.provider]
        context = None
        start = time.perf_counter_ns()
        try:
            context = Context(state, bound, state.stream(part.provider), lease, part.name)
            inputs = [frame[slot] for slot in action.inputs]
            program = self._programs[part.name]
            if part.name in self._replays:
                program = self._replays[part.name].choose(context, inputs)
            results = program.run(context, inputs)
        except Exception as error:
            node = context.node if context is not None else None
            failure = located(error, bound.name, part.name, "" if node is None else str(node.name))
            name_parts(failure, part.subgraph.nodes)
            raise failure from failure.__cause__
        if not isinstance(results, list | tuple) or len(results) != len(action.outputs):
            found = (
                f"{len(results)} outputs"
                if isinstance(results, list | tuple)
                else f"a {type(results).__name__}"
            )
            raise BrokenProviderError(
                f"provider {bound.name!r} returned {found} for {part.name}, expected a list "
                f"of {len(action.outputs)}",
                where=Where(stage="run", provider=bound.name, partition=part.name),
                remedy="report this to the maker of the plugin: Program.run returns one "
                "value for each Subgraph.outputs",
            )
        for slot, result in zip(action.outputs, results, strict=True):
            frame[slot] = result
        if state.options.profile is not None:
            nodes = part.subgraph.nodes
            inside = tuple(str(inner.name) for node in nodes for inner in nodes_inside(node))
            state.options.profile.recorder.add(
                part.name,
                "partition",
                start,
                provider=bound.name,
                partition=part.name,
                nodes=tuple(str(node.name) for node in nodes),
                **({"inside": inside} if inside else {}),
                tag=state.options.tag,
                replay=program is not self._programs[part.name],
            )

    # ---- transfers ----

    def _transfer(self, action: Transfer, frame: Frame, state: RunState, leases: Leases) -> None:
        start = time.perf_counter_ns()
        source = frame[action.source]
        staying = leases[action.from_place] if action.to_place == HOST_PLACE else None
        device = action.from_place if action.to_place == HOST_PLACE else action.to_place
        try:
            if staying is not None and action.value in staying.kept and hasattr(source, "shape"):
                frame[action.target] = self._stay(action, source, state, staying)
                return
            if action.to_place == HOST_PLACE:
                frame[action.target] = self._to_host(source, action.from_place, state)
            else:
                frame[action.target] = self._to_device(action, source, state, leases[action.to_place])
        except Exception as error:
            failure = located(error, self._bounds[device].name, *self._served(action))
            raise failure.at(value=str(action.value.name)) from failure.__cause__
        if state.options.profile is not None:
            state.options.profile.recorder.add(
                "copy to host" if action.to_place == HOST_PLACE else "copy to device",
                "transfer",
                start,
                provider=self._bounds[device].name,
                value=str(action.value.name),
                nbytes=_nbytes(frame[action.target]),
            )

    def _served(self, transfer: Transfer) -> tuple[str, str]:
        """The partition that a copy is for, and its node that reads or makes the value."""
        for action in self.schedule.actions:
            if isinstance(action, RunPartition) and (
                transfer.target in action.inputs or transfer.source in action.outputs
            ):
                nodes = action.partition.subgraph.nodes
                ends = [n for n in nodes if transfer.value in n.inputs or transfer.value in n.outputs]
                return action.partition.name, str(ends[0].name) if ends else ""
        return "", ""

    def _to_host(self, source: Any, place: int, state: RunState) -> Any:
        if source is None or isinstance(source, list):
            return source if source is None else [self._to_host(item, place, state) for item in source]
        result = np.empty(tuple(source.shape), source.dtype)
        stream = state.stream(place)
        self._bounds[place].allocator.copy_out(source, result, stream)
        stream.synchronize()
        return result

    def _stay(self, action: Transfer, source: Tensor, state: RunState, lease: Lease) -> DeviceArray:
        """An output in the device's memory, which is the caller's from now on."""
        place = action.from_place
        tensor, buffer = lease.hand_over(action.value, source, state.stream(place))
        return DeviceArray(self._bounds[place], tensor, None if buffer is None else lease.space.arena, buffer)

    def _brought(self, value: DeviceArray, state: RunState) -> Any:
        """A device's value in the host's memory."""
        place = next(index for index, bound in enumerate(self._bounds) if bound is value.bound)
        return self._to_host(value.tensor, place, state)

    def _to_device(self, action: Transfer, source: Any, state: RunState, lease: Lease) -> Tensor:
        bound = self._bounds[action.to_place]
        if isinstance(source, DeviceArray):
            if source.bound is bound:
                return source.tensor
            source = self._brought(source, state)
        source = np.asarray(source) if isinstance(source, np.generic) else source
        if not isinstance(source, np.ndarray) or source.dtype.kind == "O":
            raise RunError(
                f"{action.value.name} is a {type(source).__name__}, which cannot be copied to "
                f"{bound.device.name}",
                where=Where(stage="run", provider=bound.name, value=str(action.value.name)),
                remedy="the provider must refuse nodes that read strings, sequences or maps",
            )
        imported = bound.allocator.imported(source, state.stream(action.to_place))
        if imported is not None:
            return imported
        array = np.ascontiguousarray(source).reshape(source.shape)
        state.keep(array)
        tensor = lease.empty(action.value, array.shape, array.dtype)
        bound.allocator.copy_in(array, tensor, state.stream(action.to_place))
        return tensor

    # ---- control flow ----

    def _run_control(self, index: int, action: RunControl, frame: Frame, state: RunState) -> None:
        inputs = [None if slot < 0 else frame[slot] for slot in action.inputs]

        def body(name: str, arguments: Sequence[Any]) -> list[Any]:
            captured = [frame[slot] for slot in action.captures[name]]
            return self._bodies[index, name].run(state, arguments, captured)

        start = time.perf_counter_ns()
        try:
            results = CONTROL[action.node.op_type](action.node, inputs, body, action.opset)
        except EpkitError as error:
            error.at(stage="run", node=str(action.node.name))
            raise
        except Exception as error:
            raise RunError(
                f"{action.node.op_type} failed: {error or type(error).__name__}",
                where=Where(stage="run", node=str(action.node.name)),
                remedy="check the inputs of this node: " + ", ".join(map(describe_argument, inputs)),
            ) from error
        for slot, result in zip(action.outputs, results, strict=False):
            if slot >= 0:
                frame[slot] = result
        if state.options.profile is not None:
            state.options.profile.recorder.add(
                str(action.node.name), "control", start, provider="runtime", operator=action.node.op_type
            )


def make_arenas(bounds: Sequence[Bound], budgets: Mapping[str, int]) -> dict[int, Arena]:
    """One arena for the host, and one for each device with memory of its own; with their budgets (bytes)."""
    shared = [bound.name for bound in bounds if bound.device.host_memory]
    host = [budgets[name] for name in ("host", *shared) if name in budgets]
    arenas = {HOST_PLACE: Arena("host", HostAllocator(), Budget("host", min(host)) if host else None)}
    for index, bound in enumerate(bounds):
        if not bound.device.host_memory:
            given = budgets.get(bound.name)
            budget = None if given is None else Budget(bound.device.name, given)
            arenas[index] = Arena(bound.device.name, bound.allocator, budget)
    return arenas


def _read_on_host(schedule: Schedule) -> frozenset[int]:
    """Slots whose values must be the host's: what runs there reads them, or an input is an output as it is."""
    found = set(schedule.inputs) & set(schedule.outputs)
    for action in schedule.actions:
        if isinstance(action, RunControl):
            found.update(action.inputs, *action.captures.values())
        elif isinstance(action, RunPartition) and action.place == HOST_PLACE:
            found.update(action.inputs)
    return frozenset(found)


def _finish(state: RunState, leases: Leases, complete: bool) -> None:
    """Give the memory back once no device is at work in it any more."""
    try:
        if len(leases) > 1:
            state.synchronize()
    except Exception:
        if complete:
            raise
        # else the run has failed already, and says why
    finally:
        for lease in leases.values():
            lease.close(complete)


def _shape_of(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_shape_of, value))
    return getattr(value, "shape", None)


def _nbytes(value: Any) -> int:
    """Bytes of a tensor of any provider, which has a shape and a dtype."""
    if not hasattr(value, "shape"):
        return 0
    return int(np.prod(value.shape, dtype=np.int64)) * int(value.dtype.itemsize)
