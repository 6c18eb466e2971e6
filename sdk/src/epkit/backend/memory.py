"""What a vendor supplies of memory and ordering: raw allocate, free and copy; a stream.

Arenas, lifetimes, reuse and statistics are the core's. The defaults here serve every device that
works in the host's memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

Tensor = Any
"""A provider's own array object; it must have ``shape`` and ``dtype`` (a NumPy dtype)."""


class Event(Protocol):
    """A point in a stream."""

    def wait(self) -> None:
        """Block the calling thread until all work before the point is done."""


class Stream(ABC):
    """An ordered queue of work on one device; one stream belongs to one run at a time."""

    @abstractmethod
    def record(self) -> Event:
        """An event at the queue's present end."""

    @abstractmethod
    def synchronize(self) -> None:
        """Block until everything enqueued so far is done; raises what the device reported."""

    def close(self) -> None:  # noqa: B027 - optional, most streams own nothing
        """Give back the queue; called once, after the last run."""


class Allocator(ABC):
    """Raw memory of one device."""

    alignment: int = 64
    """Bytes; every offset that the core asks a view for is a multiple of it."""

    @abstractmethod
    def allocate(self, nbytes: int) -> Any:
        """A new buffer of at least ``nbytes``, aligned; contents undefined.

        Raises:
            MemoryError: if the device has too little memory; the core names the place and the sizes.
        """

    @abstractmethod
    def free(self, buffer: Any) -> None:
        """Give back what ``allocate`` returned; called exactly once for each buffer."""

    @abstractmethod
    def view(self, buffer: Any, offset: int, shape: Sequence[int], dtype: np.dtype[Any]) -> Tensor:
        """A tensor of the given shape and dtype over the buffer's bytes from ``offset`` on."""

    @abstractmethod
    def copy_in(self, array: np.ndarray[Any, Any], tensor: Tensor, stream: Stream) -> None:
        """Copy a contiguous host array into a tensor of equal shape and dtype; may be asynchronous.

        The core keeps ``array`` alive and unchanged until the stream is synchronised.
        """

    @abstractmethod
    def copy_out(self, tensor: Tensor, array: np.ndarray[Any, Any], stream: Stream) -> None:
        """Copy a tensor into a contiguous host array of equal shape and dtype.

        Complete after a synchronise.
        """

    def copy(self, source: Tensor, target: Tensor, stream: Stream) -> None:
        """Copy between two tensors of equal shape and dtype on the device; by default through the host."""
        array = np.empty(tuple(source.shape), source.dtype)
        self.copy_out(source, array, stream)
        stream.synchronize()
        self.copy_in(array, target, stream)
        stream.synchronize()

    def imported(self, array: Any, stream: Stream) -> Tensor | None:
        """A tensor over the memory of another library's array, without a copy; None if this device cannot read it.

        ``array`` has ``__dlpack__`` and ``__dlpack_device__``; it is alive and unchanged until the run ends. Work
        that the other library enqueued must be done before later work of ``stream``. Tensors that have these two
        methods themselves can leave the session: their memory must live as long as the capsules that they gave.
        """
        return None

    def lasts(self, tensor: Tensor) -> bool:
        """True if nobody writes into a result's memory while anyone refers to the tensor, or to a capsule of it.

        Such a result need not be copied when it stays on the device after the run.
        """
        return False


class HostEvent:
    """The event of a stream that never lags."""

    def wait(self) -> None:
        """Return at once: host work is done when the call that did it returns."""


class HostStream(Stream):
    """A stream for devices that compute inside the call."""

    def record(self) -> Event:
        return HostEvent()

    def synchronize(self) -> None:
        return None


class HostAllocator(Allocator):
    """NumPy memory, 64-byte aligned."""

    def allocate(self, nbytes: int) -> np.ndarray[Any, Any]:
        raw = np.empty(nbytes + self.alignment, np.uint8)
        skip = -raw.ctypes.data % self.alignment
        return raw[skip : skip + nbytes]

    def free(self, buffer: Any) -> None:
        del buffer

    def view(self, buffer: Any, offset: int, shape: Sequence[int], dtype: np.dtype[Any]) -> Tensor:
        return np.ndarray(tuple(shape), dtype, buffer=buffer, offset=offset)

    def copy_in(self, array: np.ndarray[Any, Any], tensor: Tensor, stream: Stream) -> None:
        np.copyto(tensor, array)

    def copy_out(self, tensor: Tensor, array: np.ndarray[Any, Any], stream: Stream) -> None:
        np.copyto(array, tensor)
