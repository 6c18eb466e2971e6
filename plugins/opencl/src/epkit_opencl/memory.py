"""Device memory: tensors over buffers, raw allocation and copies, and the stream, which is a queue."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from epkit.backend import Allocator, Event, Stream

from .device import Gpu, Limits
from .recording import Recording
from .staging import Staging
from .transfer import new_shared, read, write

SHARED = 1 << 12
"""Bytes from which on a weight is read where it lies; smaller ones are copied."""

MIRRORED = 512
"""Bytes up to which a tensor that came from the host, or that only says shapes, is remembered there."""


class Tensor:
    """Contiguous elements in a buffer.

    Attributes:
        buffer, offset: the buffer, and the first byte in it.
        shape, dtype: as NumPy's; bool is a byte of 0 or 1.
        host: its values, where the host happens to know them (sizes, axes, indices).
        packed: for weights, other forms of them that kernels made, by purpose; else None.
    """

    __slots__ = ("buffer", "dtype", "host", "offset", "packed", "shape")

    def __init__(
        self,
        buffer: Any,
        offset: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        host: np.ndarray[Any, Any] | None = None,
    ) -> None:
        self.buffer, self.offset, self.shape, self.dtype, self.host = buffer, offset, shape, dtype, host
        self.packed: dict[str, Tensor] | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes."""
        return self.size * int(self.dtype.itemsize)

    def reshaped(self, shape: Sequence[int]) -> Tensor:
        """The same elements under another shape."""
        host = None if self.host is None else self.host.reshape(tuple(shape))
        return Tensor(self.buffer, self.offset, tuple(shape), self.dtype, host)


def new_buffer(gpu: Gpu, nbytes: int) -> Any:
    """Device memory; contents undefined.

    Raises:
        MemoryError: if the device has too little.
    """
    import pyopencl as cl

    try:
        return cl.Buffer(gpu.context, cl.mem_flags.READ_WRITE, max(1, nbytes))
    except (cl.MemoryError, cl.LogicError) as error:  # too much in all, or for one buffer
        raise MemoryError(f"{gpu.handle.name.strip()} has no {nbytes} bytes: {error}") from error


def weight_buffer(gpu: Gpu, limits: Limits, array: np.ndarray[Any, Any]) -> Any:
    """Read-only memory with these values. A device that shares the host's memory reads the array itself, where its
    address allows it: the weights of a mapped file are then in memory once, and only if they are read.

    Raises:
        MemoryError: if the device has too little.
    """
    import pyopencl as cl

    flags, shared = cl.mem_flags.READ_ONLY, cl.mem_flags.USE_HOST_PTR
    aligned = array.ctypes.data % limits.alignment == 0
    if gpu.shares_memory and aligned and array.nbytes >= SHARED:
        with suppress(cl.Error):  # such as a driver that wants to write to what it maps
            return cl.Buffer(gpu.context, flags | shared, hostbuf=array)
    try:
        return cl.Buffer(gpu.context, flags | cl.mem_flags.COPY_HOST_PTR, hostbuf=array)
    except (cl.MemoryError, cl.LogicError) as error:
        raise MemoryError(f"the device has no {array.nbytes} bytes for a weight: {error}") from error


class ClAllocator(Allocator):
    """Buffers of one context."""

    def __init__(self, gpu: Gpu, limits: Limits, lanes: Lanes) -> None:
        self.gpu, self.lanes = gpu, lanes
        self.new = new_shared if limits.svm else new_buffer
        self.alignment = limits.alignment

    def allocate(self, nbytes: int) -> Any:
        try:
            return self.new(self.gpu, nbytes)
        except MemoryError:
            self.lanes.shrink()
            return self.new(self.gpu, nbytes)

    def free(self, buffer: Any) -> None:
        buffer.release()

    def view(self, buffer: Any, offset: int, shape: Sequence[int], dtype: np.dtype[Any]) -> Tensor:
        return Tensor(buffer, offset, tuple(shape), np.dtype(dtype))

    def copy_in(self, array: np.ndarray[Any, Any], tensor: Tensor, stream: Stream) -> None:
        assert isinstance(stream, ClStream)
        if array.nbytes <= MIRRORED:
            tensor.host = array.copy()
        if array.nbytes:
            flat = array.reshape(-1).view(np.uint8)
            if stream.lane.staging is not None:
                flat = stream.lane.staging.filled(flat)
            write(self.gpu, stream.queue, tensor, flat)

    def copy_out(self, tensor: Tensor, array: np.ndarray[Any, Any], stream: Stream) -> None:
        assert isinstance(stream, ClStream)
        if tensor.host is not None:
            array[...] = tensor.host
        elif array.nbytes:
            flat = array.reshape(-1).view(np.uint8)
            if stream.lane.staging is not None:
                flat = stream.lane.staging.awaited(flat)
            deliver = read(self.gpu, stream.queue, tensor, flat)
            if deliver is not None:
                stream.awaited.append(deliver)


class ClEvent:
    """A marker in a queue."""

    def __init__(self, marker: Any) -> None:
        self.marker = marker

    def wait(self) -> None:
        """Block until all work before it is done."""
        self.marker.wait()


class Lane:
    """A queue and what belongs to it; one run after the other uses it.

    Attributes:
        queue: in order.
        staging: pinned memory for copies, where the device's memory is not the host's.
    """

    def __init__(self, gpu: Gpu) -> None:
        import pyopencl as cl

        self.queue = cl.CommandQueue(gpu.context)
        self.staging = None if gpu.shares_memory else Staging(gpu, self.queue)
        self.scratch: dict[str, tuple[int, Any]] = {}


class Lanes:
    """Lanes of a provider that no run uses at the moment."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self._idle: list[Lane] = []

    def take(self) -> Lane:
        """An idle one, or a new one.

        Raises:
            RuntimeError: in a forked process.
        """
        self.gpu.check_process()
        try:
            return self._idle.pop()
        except IndexError:
            return Lane(self.gpu)

    def give(self, lane: Lane) -> None:
        """Back to the idle ones."""
        self._idle.append(lane)

    def shrink(self) -> None:
        """Drop what idle lanes hold; the device is short of memory."""
        self._idle.clear()


class ClStream(Stream):
    """A lane as one run sees it; kernels of a run share its scratch memory one after the other."""

    def __init__(
        self, gpu: Gpu, limits: Limits, lane: Lane, give_back: Callable[[Lane], None] | None = None
    ) -> None:
        self.gpu, self.limits, self.lane, self._give_back = gpu, limits, lane, give_back
        self.queue = lane.queue
        self.recording: Recording | None = None
        self.awaited: list[Callable[[], None]] = []
        self._own: dict[str, tuple[int, Any]] = {}

    def scratch(self, purpose: str, nbytes: int) -> Any:
        """A buffer of at least ``nbytes``, valid until the next call for the same purpose. A recording keeps its own.

        Raises:
            MemoryError: if the device has too little.
        """
        pool = self.lane.scratch if self.recording is None else self._own
        held, buffer = pool.get(purpose, (0, None))
        if held < nbytes:
            pool.pop(purpose, None)
            buffer = new_buffer(self.gpu, nbytes)
            pool[purpose] = (nbytes, buffer)
        return buffer

    def record(self) -> Event:
        import pyopencl as cl

        return ClEvent(cl.enqueue_marker(self.queue))

    def synchronize(self) -> None:
        self.queue.finish()
        if self.awaited:
            while self.awaited:
                self.awaited.pop()()
            self.queue.finish()  # the maps are given back before another queue has the memory
        if self.lane.staging is not None:
            self.lane.staging.deliver()

    def close(self) -> None:
        self.synchronize()
        if self._give_back is not None:
            self._give_back(self.lane)
