"""Replay of a whole program as one CUDA graph: everything that it touches stays at the address it was recorded with.

A recording reads its inputs where they were when it was made: a session that one thread uses has them there again.
Where they are not, there is a second recording with places of its own, to which inputs are copied. Results stay where
the recording wrote them until the run that asked for them ends; a run that comes meanwhile does without the graph.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from epkit.backend import Program, RunContext
from epkit.errors import RunError

from .launch import stream_of
from .memory import CudaStream, Tensor, Watch

if TYPE_CHECKING:
    from .compile import CudaProgram
    from .machine import RawGraph


class RecordingContext(RunContext):
    """A run whose values live in memory of the recording's own."""

    observed = False

    def __init__(self, context: RunContext) -> None:
        self.device = context.device
        self.stream = context.stream

    def empty(self, value: ir.Value, shape: Sequence[int], dtype: np.dtype[Any]) -> Tensor:
        return Tensor(stream_of(self).machine.xp.empty(tuple(shape), dtype))

    def begin(self, node: ir.Node) -> None:
        return None

    def end(self, node: ir.Node) -> None:
        return None


@dataclass
class Recording:
    """A graph and the memory that it works in.

    Attributes:
        memory: the pool; alive as long as the graph.
        inputs, outputs: tensors at the recorded addresses.
        known: values of inputs that the host was asked for: sizes that the recording has in it.
        graph: the work.
        watch: where its kernels report wrong indices.
        owned: True if the inputs' places are the recording's own, so that it may write there.
    """

    memory: Any
    inputs: list[Tensor]
    outputs: list[Tensor]
    known: list[np.ndarray[Any, Any] | None]
    graph: RawGraph
    watch: Watch
    owned: bool

    def fits(self, inputs: Sequence[Tensor]) -> bool:
        """True if the inputs lie where the recording reads them, or may be copied there."""
        return self.owned or all(map(_same_place, inputs, self.inputs))


def record(
    program: CudaProgram, context: RunContext, inputs: Sequence[Tensor], *, owned: bool
) -> Recording | None:
    """Record the program for inputs like these; None where it needs the host in between."""
    stream = stream_of(context)
    machine = stream.machine
    stream.synchronize()
    try:
        with machine.using(stream.raw), machine.private_memory() as memory:
            read = [item.array if not owned else machine.xp.empty(item.shape, item.dtype) for item in inputs]
            places = [Tensor(array, item.host) for array, item in zip(read, inputs, strict=True)]
            stream.recorded = watch = stream.new_watch()
            stream.synchronize()
            stream.capturing = True
            with stream.raw.capture() as graphs:
                outputs = list(program.run(RecordingContext(context), places))
                outputs = [Tensor(stream.dense(item.array)) for item in outputs]
    except (RunError, RuntimeError):
        return None  # what the run needs of the host, an ordinary run does; nothing was executed here
    finally:
        stream.capturing, stream.recorded = False, None
    known = [place.host if place.asked else None for place in places]
    return Recording(memory, places, outputs, known, graphs[0], watch, owned)


class Replay(Program):
    """The program, as one launch."""

    def __init__(self, program: CudaProgram, recording: Recording) -> None:
        self.program = program
        self.recordings = [recording]
        self._lock = threading.Lock()
        self._user: CudaStream | None = None

    @classmethod
    def of(cls, program: CudaProgram, context: RunContext, inputs: Sequence[Tensor]) -> Replay | None:
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
        with stream.machine.using(stream.raw):  # this thread may be at another GPU
            for given, kept in zip(inputs, recording.inputs, strict=True):
                if given.size and not _same_place(given, kept):
                    stream.machine.copy(stream.dense(given.array), kept.array, stream.raw)
            recording.graph.launch(stream.raw)
        if recording.watch.nodes:
            stream.watch(recording.watch)
        return [Tensor(kept.array) for kept in recording.outputs]

    def _recording(self, context: RunContext, inputs: Sequence[Tensor]) -> Recording | None:
        """The first that fits; a second one with places of its own, once the first does not."""
        if not all(map(_agrees, self.recordings[0].known, inputs)):
            return None
        for recording in self.recordings:
            if recording.fits(inputs):
                return recording
        made = record(self.program, context, inputs, owned=True)
        if made is not None:
            self.recordings.append(made)
        return made

    def _leave(self) -> None:
        with self._lock:
            self._user = None


def _same_place(given: Tensor, kept: Tensor) -> bool:
    return bool(given.array.data.ptr == kept.array.data.ptr and given.array.strides == kept.array.strides)


def _agrees(known: np.ndarray[Any, Any] | None, tensor: Tensor) -> bool:
    """True if the recording does not depend on the values, or was made for these."""
    return known is None or (tensor.host is not None and bool(np.array_equal(known, tensor.host)))
