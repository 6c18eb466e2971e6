"""Replay of a whole program as one CUDA graph: everything that it touches stays at the address it was recorded with.

A recording reads its inputs where they were when it was made, and its results stay where it wrote them. Who keeps such
a result on the device keeps the recording from being replayed: meanwhile a second one is. Of two recordings in turn,
each made again once it is known where the other writes, each reads what the other wrote, and nothing is copied. Where
inputs wander, or more results are kept, a last recording has places of its own, to and from which values are copied.
All share the memory of what is in between.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnx_ir as ir

from epkit.backend import Program, RunContext
from epkit.errors import RunError

from .launch import stream_of
from .memory import CudaStream, Tensor, Watch

if TYPE_CHECKING:
    from .machine import RawGraph


class Recordable(Protocol):
    """What can be recorded while it runs; ``output_values`` are its results in order."""

    output_values: tuple[ir.Value, ...]

    def run(self, context: RunContext, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Enqueue the work on the context's stream."""


class RecordingContext(RunContext):
    """A run whose values live in memory of the recording's own; ``targets``: results that have a place already."""

    observed = False

    def __init__(self, context: RunContext, targets: Mapping[ir.Value, Tensor]) -> None:
        self.device = context.device
        self.stream = context.stream
        self._targets = targets

    def empty(self, value: ir.Value, shape: Sequence[int], dtype: np.dtype[Any]) -> Tensor:
        target = self._targets.get(value)
        if target is not None and (target.shape, target.dtype) == (tuple(shape), dtype):
            return Tensor(target.array)
        return Tensor(stream_of(self).machine.xp.empty(tuple(shape), dtype))

    def begin(self, node: ir.Node) -> None:
        return None

    def end(self, node: ir.Node) -> None:
        return None


LENDING = 2
"""Recordings whose results may be kept where they are."""

MADE_AGAIN = 2
"""How often one of them is, because its inputs have moved."""

Place = tuple[int, tuple[int, ...]]
"""Address and strides of an array."""


@dataclass
class Recording:
    """A graph and the memory that it works in.

    Attributes:
        memory: the pool; alive as long as the graph.
        inputs, outputs: tensors at the recorded addresses.
        places: of the inputs.
        known: values of inputs that the host was asked for: sizes that the recording has in it.
        graph: the work.
        watch: where its kernels report wrong indices.
        owned: True if the inputs' places are the recording's own, so that it may write there.
        idle: references to the results, and to their arrays, while nobody else has any.
    """

    memory: Any
    inputs: list[Tensor]
    outputs: list[Tensor]
    places: list[Place]
    known: list[tuple[int, np.ndarray[Any, Any]]]
    graph: RawGraph
    watch: Watch
    owned: bool
    idle: list[int]

    def serves(self, places: Sequence[Place]) -> bool:
        """True if the inputs lie where they are read, or may be copied there, and nobody keeps a result."""
        return self.owned or (self.places == places and self.is_idle)

    @property
    def is_idle(self) -> bool:
        """True if nobody keeps a result."""
        return references(self.outputs) == self.idle


def references(tensors: Sequence[Tensor]) -> list[int]:
    """How many there are to the tensors and to their arrays: a capsule of another library has one, too."""
    return [*map(sys.getrefcount, tensors), *map(sys.getrefcount, [tensor.array for tensor in tensors])]


def record(
    program: Recordable,
    context: RunContext,
    inputs: Sequence[Tensor],
    *,
    owned: bool,
    pool: Any = None,
    before: Sequence[Tensor] = (),
) -> Recording | None:
    """Record the program for inputs like these; None where it needs the host in between.

    Args:
        owned: True for places of its own.
        pool: memory of another recording, which never runs at the same time.
        before: results of the recording that this one replaces: they stay where they are.
    """
    targets = dict(zip(program.output_values, before, strict=False))
    stream = stream_of(context)
    machine = stream.machine
    stream.synchronize()
    try:
        with machine.using(stream.raw), machine.private_memory(pool) as memory:
            read = [
                machine.xp.empty(item.shape, item.dtype) if owned else item.array.view() for item in inputs
            ]  # a view: who gave the array can see that nobody else has it
            places = [Tensor(array, item.host) for array, item in zip(read, inputs, strict=True)]
            stream.recorded = watch = stream.new_watch()
            stream.synchronize()
            stream.capturing = True
            with stream.raw.capture() as graphs:
                outputs = list(program.run(RecordingContext(context, targets), places))
                wanted = [targets.get(value) for value in program.output_values]
                outputs = [_result(stream, *pair, places) for pair in zip(outputs, wanted, strict=True)]
    except (RunError, RuntimeError):
        return None  # what the run needs of the host, an ordinary run does; nothing was executed here
    finally:
        stream.capturing, stream.recorded = False, None
    known = [(at, place.host) for at, place in enumerate(places) if place.asked and place.host is not None]
    lend(outputs, lasts=not owned)
    idle = references(outputs)
    return Recording(memory, places, outputs, _places(places), known, graphs[0], watch, owned, idle)


class Replay(Program):
    """The program, as one launch."""

    def __init__(self, program: Recordable, recording: Recording) -> None:
        self.program = program
        self.recordings = [recording]
        self._lock = threading.Lock()
        self._user: CudaStream | None = None
        self._again = MADE_AGAIN

    @classmethod
    def of(cls, program: Recordable, context: RunContext, inputs: Sequence[Tensor]) -> Replay | None:
        """A replay for inputs like these; None where there can be none."""
        found = record(program, context, inputs, owned=False)
        return None if found is None else cls(program, found)

    def run(self, context: RunContext, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        stream = stream_of(context)
        with self._lock:
            recording = self._recording(context, inputs) if self._user in (None, stream) else None
            if recording is not None and self._user is None:
                self._user = stream
                stream.when_closed(self._leave)
        if recording is None:
            return self.program.run(context, inputs)
        if recording.owned:
            _copy(stream, inputs, recording.inputs)
        recording.graph.launch(stream.raw)
        if recording.watch.nodes:
            stream.watch(recording.watch)
        for tensor in recording.outputs:
            tensor.host = None
        return list(recording.outputs)

    def _recording(self, context: RunContext, inputs: Sequence[Tensor]) -> Recording | None:
        """One that serves these inputs, made where there is none yet; None where sizes are others than recorded."""
        first = self.recordings[0]
        if not all(_agrees(values, inputs[at]) for at, values in first.known):
            return None
        places = _places(inputs)
        for recording in self.recordings:
            if recording.serves(places):
                return recording
        lending = [recording for recording in self.recordings if not recording.owned]
        spare = next((recording for recording in lending if recording.is_idle), None)
        made = None
        if len(lending) < LENDING:
            made = record(self.program, context, inputs, owned=False, pool=first.memory)
        elif spare is not None and self._again:
            self._again -= 1
            self.recordings.remove(spare)
            options: dict[str, Any] = {"pool": first.memory, "before": spare.outputs}
            made = record(self.program, context, inputs, owned=False, **options)
        else:
            made = record(self.program, context, inputs, owned=True, pool=first.memory)
        if made is not None:
            self.recordings.append(made)
        return made

    def _leave(self) -> None:
        with self._lock:
            self._user = None


def _result(stream: CudaStream, made: Tensor, target: Tensor | None, inputs: Sequence[Tensor]) -> Tensor:
    """A result at its place, by an array that nobody else has; copied there if it was made elsewhere.

    What is no more than a view of an input gets memory of its own: the input's is not the recording's.
    """
    array = stream.dense(made.array)
    place = None if target is None or target.shape != made.shape else target.array
    if place is None and any(_within(array, item.array) for item in inputs):
        place = stream.machine.xp.empty(array.shape, array.dtype)
    if place is not None and place.data.ptr != array.data.ptr:
        if array.size:
            stream.machine.copy(array, place, stream.raw)
        array = place
    return Tensor(array.view())


def _within(array: Any, whole: Any) -> bool:
    """True if an array begins inside another's memory."""
    sizes = zip(whole.shape, whole.strides, strict=True)
    reach = whole.dtype.itemsize + sum((size - 1) * step for size, step in sizes)
    return bool(array.size and whole.size and 0 <= array.data.ptr - whole.data.ptr < reach)


def lend(tensors: Sequence[Tensor], *, lasts: bool) -> None:
    """Say whether nobody writes there while they are kept."""
    for tensor in tensors:
        tensor.lasts = lasts


def _places(tensors: Sequence[Tensor]) -> list[Place]:
    return [(array.data.ptr, array.strides) for array in [tensor.array for tensor in tensors]]


def _copy(stream: CudaStream, inputs: Sequence[Tensor], kept: Sequence[Tensor]) -> None:
    """Values to the places where a recording reads them."""
    with stream.machine.using(stream.raw):  # this thread may be at another GPU
        for given, target, here, there in zip(inputs, kept, _places(inputs), _places(kept), strict=True):
            if given.size and here != there:
                stream.machine.copy(stream.dense(given.array), target.array, stream.raw)


def _agrees(known: np.ndarray[Any, Any], tensor: Tensor) -> bool:
    """True if a recording was made for these values."""
    return tensor.host is not None and bool(np.array_equal(known, tensor.host))
