"""Capture: the kernels of one run with their arguments set, enqueued again for inputs of the same shapes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import onnx_ir as ir

from epkit.backend import Program, RunContext, Subgraph

from .command_buffer import CommandBuffer, functions_of
from .memory import ClStream, Tensor, new_buffer
from .recording import Launch, NotCapturableError, Recording
from .transfer import copy, new_shared

Command = Callable[[Any], Any]
"""Something to enqueue."""


class RecordContext(RunContext):
    """Runs a program once on buffers of its own, while its stream records."""

    observed = False

    def __init__(self, context: RunContext) -> None:
        assert isinstance(context.stream, ClStream)
        self.device = context.device
        self.recording = Recording()
        self.stream = ClStream(context.stream.gpu, context.stream.limits, context.stream.lane)
        self.stream.recording = self.recording
        self.recording.kept.append(self.stream)

    def empty(self, value: ir.Value, shape: Sequence[int], dtype: np.dtype[Any]) -> Tensor:
        assert isinstance(self.stream, ClStream)
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        new = new_shared if self.stream.limits.svm else new_buffer
        return Tensor(new(self.stream.gpu, nbytes), 0, tuple(shape), np.dtype(dtype))

    def begin(self, node: ir.Node) -> None:
        return None

    def end(self, node: ir.Node) -> None:
        return None


class Replay(Program):
    """A recorded run. Its buffers serve one run at a time: the next one waits on the device, not on the host."""

    def __init__(
        self,
        subgraph: Subgraph,
        recording: Recording,
        commands: Sequence[Command],
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
    ) -> None:
        self.subgraph, self.recording = subgraph, recording
        self.inputs, self.outputs = inputs, outputs
        self.commands = commands
        self._lock = threading.Lock()
        self._last: Any = None

    def run(self, context: RunContext, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        import pyopencl as cl

        assert isinstance(context.stream, ClStream)
        queue = context.stream.queue
        fresh = [
            context.empty(value, tensor.shape, tensor.dtype)
            for value, tensor in zip(self.subgraph.outputs, self.outputs, strict=True)
        ]
        with self._lock:
            if self._last is not None:
                cl.enqueue_barrier(queue, wait_for=[self._last])
            for given, own in zip(inputs, self.inputs, strict=True):
                copy(queue, given, own)
            for command in self.commands:
                command(queue)
            for own, result in zip(self.outputs, fresh, strict=True):
                copy(queue, own, result)
                result.host = own.host
            self._last = cl.enqueue_marker(queue)
            queue.flush()
        return fresh


def record(
    program: Program, subgraph: Subgraph, context: RunContext, inputs: Sequence[Tensor]
) -> Replay | None:
    """Run a program once under recording; None if what it does depends on its inputs' values."""
    recorder = RecordContext(context)
    assert isinstance(context.stream, ClStream)
    own = []
    for value, tensor in zip(subgraph.inputs, inputs, strict=True):
        mine = recorder.empty(value, tensor.shape, tensor.dtype)
        copy(context.stream.queue, tensor, mine)
        own.append(mine)
    try:
        outputs = program.run(recorder, own)
    except NotCapturableError:
        return None
    recorder.recording.kept += [*own, *outputs]
    context.stream.queue.finish()
    commands = joined(recorder.recording.commands, context.stream)
    return Replay(subgraph, recorder.recording, commands, own, outputs)


def joined(commands: Sequence[Command], stream: ClStream) -> list[Command]:
    """The commands with neighbouring launches as command buffers, where the device has such."""
    functions = functions_of(stream.gpu)
    if functions is None:
        return list(commands)
    found: list[Command] = []
    for launches, group in groupby(commands, lambda command: isinstance(command, Launch)):
        own = list(group)
        try:
            found += [CommandBuffer(functions, stream.queue, own)] if launches and len(own) > 1 else own  # type: ignore[arg-type]
        except RuntimeError:  # the driver does not take them: one by one, then
            found += own
    return found
