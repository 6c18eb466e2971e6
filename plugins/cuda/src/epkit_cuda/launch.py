"""Launching kernels in a run's stream, and values that the host needs to know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from epkit.backend import RunContext
from epkit.errors import RunError, Where

from .memory import CudaStream, Tensor


def stream_of(context: RunContext) -> CudaStream:
    """The run's stream."""
    assert isinstance(context.stream, CudaStream)
    return context.stream


def launch(
    context: RunContext, source: str, name: str, grid: int, block: int, arguments: Sequence[Any]
) -> None:
    """Enqueue a kernel, unless it has nothing to do."""
    if grid:
        stream = stream_of(context)
        stream.machine.launch(source, name, grid, block, arguments, stream.raw)


class HostNeededError(RunError):
    """A value that the device computes decides what is to be done next; a recording cannot wait for it."""


def on_host(context: RunContext, tensor: Tensor) -> np.ndarray[Any, Any]:
    """A tensor's values; waits for the stream, unless the host knows them already.

    Raises:
        HostNeededError: while the stream is being recorded.
    """
    tensor.asked = True
    if tensor.host is None:
        stream = stream_of(context)
        if stream.capturing:
            raise HostNeededError(
                "a value computed on the device decides a shape", where=Where(stage="capture")
            )
        values = np.empty(tensor.shape, tensor.dtype)
        stream.fetch(tensor.array, values)
        stream.synchronize()
        tensor.host = values
    return tensor.host


def from_host(context: RunContext, array: np.ndarray[Any, Any]) -> Tensor:
    """Host values as a tensor; the host remembers them."""
    stream = stream_of(context)
    values = np.ascontiguousarray(array).reshape(np.shape(array))
    with stream.machine.using(stream.raw):
        target = stream.machine.xp.empty(values.shape, values.dtype)
    if stream.capturing:
        raise HostNeededError("a value of the host enters in the middle", where=Where(stage="capture"))
    stream.send(values, target)
    return Tensor(target, values)


def dense(context: RunContext, tensor: Tensor) -> Any:
    """The tensor's array, without gaps."""
    return stream_of(context).dense(tensor.array)
