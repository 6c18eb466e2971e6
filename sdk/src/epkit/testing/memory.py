"""A device memory that notices misuse.

Its buffers are opaque to NumPy, so whatever reads one without a copy through a stream fails. Fresh bytes are
all ones (NaN as floats, -1 as integers) and freed ones 0x7F, so a value that nobody wrote, or that was given
back too early, does not look right by chance. Every fault is raised, and kept in ``faults`` in case that
somebody swallows the exception.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend.memory import Allocator, Stream
from .stream import FakeStream

FRESH = 0xFF
FREED = 0x7F


class MisuseError(AssertionError):
    """The core, or a kernel, used a device in a way that the contract forbids."""


class DeviceBuffer:
    """Raw bytes of a device."""

    def __init__(self, memory: FakeMemory, address: int, nbytes: int) -> None:
        self.memory = memory
        self.address = address
        self.data = bytearray([FRESH]) * nbytes
        self.freed = False

    def __repr__(self) -> str:
        return f"<device buffer of {len(self.data)} bytes at {self.address:#x}>"


class DeviceTensor:
    """A tensor in device memory: shape and dtype are public, the bytes are not."""

    def __init__(
        self, buffer: DeviceBuffer, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self._buffer = buffer
        self._offset = offset

    @property
    def span(self) -> tuple[int, int]:
        """First address, and the one after the last."""
        start = self._buffer.address + self._offset
        return start, start + int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def memory(self) -> FakeMemory:
        """Where the tensor lies."""
        return self._buffer.memory

    def view(self, shape: Sequence[int]) -> DeviceTensor:
        """The same bytes in another shape."""
        return DeviceTensor(self._buffer, self._offset, tuple(shape), self.dtype)

    def peek(self) -> np.ndarray[Any, Any]:
        """A copy of the present contents: for kernels and tests, once the stream has got that far."""
        return self._array("read").copy()

    def poke(self, array: np.ndarray[Any, Any]) -> None:
        """Replace the contents."""
        target = self._array("written")
        if (array.shape, array.dtype) != (target.shape, target.dtype):
            self.memory.fault(f"{array.dtype}{list(array.shape)} was written into {self!r}")
        target[...] = array

    def _array(self, done: str) -> np.ndarray[Any, Any]:
        if self._buffer.freed:
            self.memory.fault(f"{self!r} was {done} after it had been freed")
        return np.ndarray(self.shape, self.dtype, self._buffer.data, self._offset)

    def __array__(self, *_: object, **__: object) -> np.ndarray[Any, Any]:
        raise self.memory.misuse(f"{self!r} was read by the host without a copy")

    def __repr__(self) -> str:
        return f"<device tensor {self.dtype}{list(self.shape)} at {self.span[0]:#x}>"


class FakeMemory(Allocator):
    """An allocator that checks how it is used.

    Attributes:
        alignment: of addresses and of offsets; unlike the host's, so that a mix-up shows.
        limit: bytes that may be allocated at once; None for no limit.
        faults: what went wrong, in words.
        allocations: how often ``allocate`` succeeded.
    """

    def __init__(self, alignment: int = 256, limit: int | None = None) -> None:
        self.alignment = alignment
        self.limit = limit
        self.faults: list[str] = []
        self.allocations = 0
        self._lock = threading.Lock()
        self._live: dict[int, DeviceBuffer] = {}
        self._next = alignment

    @property
    def in_use(self) -> int:
        """Bytes allocated and not freed."""
        with self._lock:
            return sum(len(buffer.data) for buffer in self._live.values())

    def misuse(self, text: str) -> MisuseError:
        """Note a fault, and give the exception to raise."""
        self.faults.append(text)
        return MisuseError(text)

    def fault(self, text: str) -> None:
        """Note and raise a fault."""
        raise self.misuse(text)

    def allocate(self, nbytes: int) -> DeviceBuffer:
        if self.limit is not None and self.in_use + nbytes > self.limit:
            raise MemoryError(f"{nbytes} bytes wanted, {self.limit - self.in_use} of {self.limit} left")
        with self._lock:
            buffer = DeviceBuffer(self, self._next, nbytes)
            gap = 2 * self.alignment  # neighbours never touch, so an overrun cannot hide in one
            self._next += -(-nbytes // self.alignment) * self.alignment + gap
            self._live[buffer.address] = buffer
            self.allocations += 1
        return buffer

    def free(self, buffer: Any) -> None:
        if not isinstance(buffer, DeviceBuffer) or buffer.memory is not self:
            self.fault(f"{buffer!r} was freed, which this device never gave out")
        if buffer.freed:
            self.fault(f"{buffer!r} was freed twice")
        with self._lock:
            del self._live[buffer.address]
            buffer.freed = True
            buffer.data[:] = bytes([FREED]) * len(buffer.data)

    def view(self, buffer: Any, offset: int, shape: Sequence[int], dtype: np.dtype[Any]) -> DeviceTensor:
        if buffer.freed:
            self.fault(f"a view of {buffer!r} was asked for after it had been freed")
        tensor = DeviceTensor(buffer, offset, tuple(shape), np.dtype(dtype))
        start, end = tensor.span
        if start % self.alignment:
            self.fault(f"a view at offset {offset} is not aligned to {self.alignment}")
        if end > buffer.address + len(buffer.data):
            self.fault(f"a view of {end - start} bytes at offset {offset} runs over the end of {buffer!r}")
        return tensor

    def copy_in(self, array: np.ndarray[Any, Any], tensor: Any, stream: Stream) -> None:
        self._check_copy(array, tensor)
        promised, address, owner = array.tobytes(), array.ctypes.data, weakref.ref(_owner(array))

        def copy() -> None:
            if owner() is None:
                self.fault(f"a host array was given back between copy_in and the copy into {tensor!r}")
            if ctypes.string_at(address, len(promised)) != promised:
                self.fault(f"a host array changed between copy_in and the copy into {tensor!r}")
            tensor.poke(np.frombuffer(promised, tensor.dtype).reshape(tensor.shape))

        _fake(stream).enqueue(copy, writes=[tensor])

    def copy_out(self, tensor: Any, array: np.ndarray[Any, Any], stream: Stream) -> None:
        self._check_copy(array, tensor)
        array.view(np.uint8 if array.ndim else array.dtype).fill(FRESH if array.ndim else 0)
        _fake(stream).enqueue(lambda: np.copyto(array, tensor.peek()), reads=[tensor])

    def _check_copy(self, array: Any, tensor: Any) -> None:
        if not isinstance(tensor, DeviceTensor) or tensor.memory is not self:
            self.fault(f"a copy names {type(tensor).__name__}, which is no tensor of this device")
        if not isinstance(array, np.ndarray) or not array.flags.c_contiguous:
            self.fault("the host's side of a copy is not a contiguous array")
        if (array.shape, array.dtype) != (tensor.shape, tensor.dtype):
            self.fault(f"a copy between {array.dtype}{list(array.shape)} and {tensor!r}")

    def upload(self, array: np.ndarray[Any, Any]) -> tuple[DeviceBuffer, DeviceTensor]:
        """A buffer with a copy of the array, at once: for weights."""
        buffer = self.allocate(max(1, array.nbytes))
        tensor = self.view(buffer, 0, array.shape, array.dtype)
        tensor.poke(array)
        return buffer, tensor


def _owner(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array that owns the bytes, or comes closest to it."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _fake(stream: Stream) -> FakeStream:
    if not isinstance(stream, FakeStream):
        raise MisuseError(f"a copy was enqueued on a {type(stream).__name__}, not on a stream of this device")
    return stream
