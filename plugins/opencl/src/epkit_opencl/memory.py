"""Device memory: tensors over buffers, raw allocation and copies, and the stream, which is a queue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from epkit.backend import Allocator, Event, Stream

from .device import Gpu, Limits

if TYPE_CHECKING:
    from .replay import Recording

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


class ClAllocator(Allocator):
    """Buffers of one context."""

    def __init__(self, gpu: Gpu, limits: Limits) -> None:
        self.gpu = gpu
        self.alignment = limits.alignment

    def allocate(self, nbytes: int) -> Any:
        import pyopencl as cl

        try:
            return cl.Buffer(self.gpu.context, cl.mem_flags.READ_WRITE, max(1, nbytes))
        except cl.Error as error:
            raise MemoryError(str(error)) from error

    def free(self, buffer: Any) -> None:
        buffer.release()

    def view(self, buffer: Any, offset: int, shape: Sequence[int], dtype: np.dtype[Any]) -> Tensor:
        return Tensor(buffer, offset, tuple(shape), np.dtype(dtype))

    def copy_in(self, array: np.ndarray[Any, Any], tensor: Tensor, stream: Stream) -> None:
        import pyopencl as cl

        assert isinstance(stream, ClStream)
        if array.nbytes <= MIRRORED:
            tensor.host = array.copy()
        if array.nbytes:
            flat = array.reshape(-1).view(np.uint8)
            cl.enqueue_copy(stream.queue, tensor.buffer, flat, dst_offset=tensor.offset, is_blocking=False)

    def copy_out(self, tensor: Tensor, array: np.ndarray[Any, Any], stream: Stream) -> None:
        import pyopencl as cl

        assert isinstance(stream, ClStream)
        if tensor.host is not None:
            array[...] = tensor.host
        elif array.nbytes:
            flat = array.reshape(-1).view(np.uint8)
            cl.enqueue_copy(stream.queue, flat, tensor.buffer, src_offset=tensor.offset, is_blocking=False)


class ClEvent:
    """A marker in a queue."""

    def __init__(self, marker: Any) -> None:
        self.marker = marker

    def wait(self) -> None:
        """Block until all work before it is done."""
        self.marker.wait()


class ClStream(Stream):
    """An in-order queue; scratch memory that kernels of one queue share one after the other."""

    def __init__(self, gpu: Gpu, queue: Any = None) -> None:
        import pyopencl as cl

        self.gpu = gpu
        self.queue = cl.CommandQueue(gpu.context) if queue is None else queue
        self.recording: Recording | None = None
        self.kernels: dict[tuple[str, str], Any] = {}
        self._scratch: dict[str, tuple[int, Any]] = {}

    def scratch(self, purpose: str, nbytes: int) -> Any:
        """A buffer of at least ``nbytes``, valid until the next call for the same purpose."""
        import pyopencl as cl

        held, buffer = self._scratch.get(purpose, (0, None))
        if held < nbytes:
            try:
                buffer = cl.Buffer(self.gpu.context, cl.mem_flags.READ_WRITE, nbytes)
            except cl.Error as error:
                raise MemoryError(str(error)) from error
            self._scratch[purpose] = (nbytes, buffer)
        return buffer

    def record(self) -> Event:
        import pyopencl as cl

        return ClEvent(cl.enqueue_marker(self.queue))

    def synchronize(self) -> None:
        self.queue.finish()

    def close(self) -> None:
        self.queue.finish()
        self._scratch.clear()
        self.kernels.clear()
