"""Device memory: tensors, allocation and copies through pinned staging, and the stream of a run."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from epkit.backend import Allocator, Event, Stream
from epkit.errors import RunError, Where

from .machine import Machine, RawStream

MIRRORED = 512
"""Bytes up to which a tensor that came from the host is remembered there: sizes, axes, indices."""

STAGED = 32 << 20
"""Bytes up to which copies go through pinned memory, which lets them overlap with work."""


class Tensor:
    """An array of the device.

    Attributes:
        array: of the machine's namespace; dense unless it is a view.
        host: its values, where the host knows them.
        asked: True once a kernel wanted to know them.
        packed: for weights, other forms of them that kernels made, by purpose; else None.
        lasts: True if nobody writes there while the tensor is referred to.
    """

    __slots__ = ("array", "asked", "host", "lasts", "packed")

    def __init__(self, array: Any, host: np.ndarray[Any, Any] | None = None) -> None:
        self.array, self.host, self.asked, self.lasts = array, host, False, False
        self.packed: dict[str, Any] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type."""
        found: np.dtype[Any] = np.dtype(self.array.dtype)
        return found

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.array.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.array.shape)

    def __dlpack__(self, **options: Any) -> Any:
        """The memory itself, for another library on the same device; nothing is copied."""
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's device type and index."""
        kind, index = self.array.__dlpack_device__()
        return int(kind), int(index)


KIND_CUDA = 2
"""DLPack's number for CUDA devices."""


def _is_here(machine: Machine, foreign: Any) -> bool:
    """True for an array on this GPU."""
    return tuple(map(int, foreign.__dlpack_device__())) == (KIND_CUDA, machine.index)


class CudaAllocator(Allocator):
    """Raw memory of one GPU."""

    alignment = 512

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def allocate(self, nbytes: int) -> Any:
        return self.machine.allocate(max(1, nbytes))

    def free(self, buffer: Any) -> None:
        self.machine.free(buffer)

    def view(self, buffer: Any, offset: int, shape: Sequence[int], dtype: np.dtype[Any]) -> Tensor:
        return Tensor(self.machine.view(buffer, offset, tuple(shape), np.dtype(dtype)))

    def copy_in(self, array: np.ndarray[Any, Any], tensor: Tensor, stream: Stream) -> None:
        assert isinstance(stream, CudaStream)
        if array.nbytes <= MIRRORED:
            tensor.host = array.copy()
        stream.send(array, tensor.array)

    def copy(self, source: Tensor, target: Tensor, stream: Stream) -> None:
        assert isinstance(stream, CudaStream)
        if source.size:
            self.machine.copy(stream.dense(source.array), target.array, stream.raw)

    def lasts(self, tensor: Tensor) -> bool:
        return tensor.lasts

    def imported(self, array: Any, stream: Stream) -> Tensor | None:
        assert isinstance(stream, CudaStream)
        if isinstance(array, np.ndarray) or not _is_here(self.machine, array):
            return None
        with self.machine.using(stream.raw):  # the other library makes this stream wait for its own
            return Tensor(self.machine.xp.from_dlpack(array))

    def copy_out(self, tensor: Tensor, array: np.ndarray[Any, Any], stream: Stream) -> None:
        assert isinstance(stream, CudaStream)
        if tensor.host is not None:
            array[...] = tensor.host
        else:
            stream.fetch(tensor.array, array)


@dataclass(eq=False)
class Watch:
    """A place of the device where kernels report wrong indices.

    Attributes:
        array: one int32, not 0 after a wrong one.
        nodes: whose kernels report there.
    """

    array: Any
    nodes: set[str] = field(default_factory=set)


class CudaStream(Stream):
    """One run's queue; its staging memory is reused once the queue is empty."""

    def __init__(self, machine: Machine, streams: StreamPool, raw: RawStream) -> None:
        self.machine = machine
        self.raw = raw
        self.capturing = False
        self.recorded: Watch | None = None
        self._streams = streams
        self._busy: list[np.ndarray[Any, Any]] = []
        self._idle: list[np.ndarray[Any, Any]] = []
        self._landing: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []
        self._own: Watch | None = None
        self._at_close: list[Callable[[], None]] = []
        self._watched: list[Watch] = []

    def send(self, array: np.ndarray[Any, Any], target: Any) -> None:
        """Enqueue a copy to the device."""
        if not array.nbytes:
            return
        if array.nbytes <= STAGED:
            staged = self._stage(array)
            staged[...] = array
            array = staged
        self.machine.copy_in(array, target, self.raw)

    def fetch(self, source: Any, array: np.ndarray[Any, Any]) -> None:
        """Enqueue a copy to the host; the values are there after a synchronise."""
        if not array.nbytes:
            return
        source = self.dense(source)
        if array.nbytes > STAGED:
            self.machine.copy_out(source, array, self.raw)
            return
        staged = self._stage(array)
        self.machine.copy_out(source, staged, self.raw)
        self._landing.append((staged, array))

    def dense(self, array: Any) -> Any:
        """The array itself, or a dense copy of a view."""
        if array.flags.c_contiguous:
            return array
        with self.machine.using(self.raw):
            return self.machine.xp.ascontiguousarray(array)

    def _stage(self, like: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Pinned memory of an array's shape and type."""
        fitting = [memory for memory in self._idle if like.nbytes <= memory.nbytes <= 4 * like.nbytes + 4096]
        if fitting:
            memory = min(fitting, key=lambda item: item.nbytes)
            self._idle = [item for item in self._idle if item is not memory]
        else:
            memory = self.machine.pinned(like.nbytes)
        self._busy.append(memory)
        return np.ndarray(like.shape, like.dtype, buffer=memory)

    def fault(self, node: str) -> Any:
        """One int32 of the device where a kernel reports a wrong index; the next synchronise looks at it.

        While the stream is recorded, it is the recording's.
        """
        if self.capturing:
            assert self.recorded is not None
            watch = self.recorded
        else:
            watch = self._own = self._own or self.new_watch()
            self.watch(watch)
        watch.nodes.add(node)
        return watch.array

    def new_watch(self) -> Watch:
        """A place for reports, 0 at first."""
        with self.machine.using(self.raw):
            return Watch(self.machine.xp.zeros(1, np.int32))

    def watch(self, watch: Watch) -> None:
        """Look at a place at the next synchronise."""
        self._watched.append(watch)

    def record(self) -> Event:
        return self.raw.record()

    def synchronize(self) -> None:
        watched, self._watched = list(dict.fromkeys(self._watched)), []
        reports = [np.zeros(1, np.int32) for _ in watched]
        for watch, report in zip(watched, reports, strict=True):
            self.fetch(watch.array, report)
        self.raw.synchronize()
        for staged, array in self._landing:
            array[...] = staged
        self._landing.clear()
        self._idle = [*self._idle, *self._busy][-STAGES_KEPT:]
        self._busy.clear()
        for watch, report in zip(watched, reports, strict=True):
            if report[0]:
                self._report(watch)

    def _report(self, watch: Watch) -> None:
        with self.machine.using(self.raw):
            watch.array[...] = 0
        self.raw.synchronize()
        raise RunError(
            f"an index is out of range in {' or '.join(sorted(watch.nodes))}",
            where=Where(stage="run", provider="cuda"),
            remedy="check the indices of this node against the size of the axis that it reads",
        )

    def when_closed(self, action: Callable[[], None]) -> None:
        """Do something once the run is over and its work is done."""
        self._at_close.append(action)

    def close(self) -> None:
        try:
            self.synchronize()
        finally:
            actions, self._at_close = self._at_close, []
            for action in actions:
                action()
            self._streams.give(self)


STAGES_KEPT = 16
"""Pieces of pinned memory that an idle stream keeps."""


class StreamPool:
    """Streams of one provider: making one costs more than a small run, so they are kept."""

    def __init__(self, machine: Machine, address: int = 0) -> None:
        self.machine = machine
        self.address = address
        self._lock = threading.Lock()
        self._idle: list[CudaStream] = []

    def take(self) -> CudaStream:
        """An idle stream, or a new one; with an address, always the caller's queue."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return CudaStream(self.machine, self, self.machine.stream(self.address))

    def give(self, stream: CudaStream) -> None:
        """Keep a stream for a later run."""
        with self._lock:
            self._idle.append(stream)

    def close(self) -> None:
        """Forget the idle streams."""
        with self._lock:
            self._idle.clear()
