"""Device memory: an address space of its own that the host cannot see, and copies through the queue."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from epkit.backend import Allocator, Stream

if TYPE_CHECKING:
    from . import isa

ALIGNMENT = 256


class Buffer:
    """Bytes of DRAM that belong to somebody."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.address = address
        self.nbytes = nbytes
        self.freed = False


class DeviceTensor:
    """A tensor in DRAM. The host knows its address, shape and dtype; its contents only through a copy."""

    __slots__ = ("address", "buffer", "dtype", "shape")

    def __init__(self, buffer: Buffer, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.buffer = buffer
        self.address = address
        self.shape = shape
        self.dtype = dtype

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __array__(self, *_: object, **__: object) -> np.ndarray[Any, Any]:
        raise TypeError(f"{self!r} lies in device memory; copy it out through a stream")

    def __repr__(self) -> str:
        return f"<npu_sim tensor {self.dtype}{list(self.shape)} at {self.address:#x}>"


class Dram:
    """The device's memory: first fit over a list of gaps."""

    def __init__(self, nbytes: int) -> None:
        self.bytes: np.ndarray[Any, np.dtype[np.uint8]] = np.empty(nbytes, np.uint8)
        self._lock = threading.Lock()
        self._gaps: list[tuple[int, int]] = [(ALIGNMENT, nbytes)] if nbytes > ALIGNMENT else []

    def allocate(self, nbytes: int) -> Buffer:
        """A buffer.

        Raises:
            MemoryError: if no gap is large enough.
        """
        wanted = max(1, -(-nbytes // ALIGNMENT)) * ALIGNMENT
        with self._lock:
            for index, (start, end) in enumerate(self._gaps):
                if end - start >= wanted:
                    self._gaps[index : index + 1] = [(start + wanted, end)] if end - start > wanted else []
                    return Buffer(start, nbytes)
            free = sum(end - start for start, end in self._gaps)
        raise MemoryError(
            f"{nbytes:,} bytes of DRAM wanted, {free:,} of {len(self.bytes):,} are free: "
            "raise the option dram_mib, or run fewer or smaller models at once"
        )

    def free(self, buffer: Buffer) -> None:
        """Give a buffer back.

        Raises:
            ValueError: if it was given back before.
        """
        with self._lock:
            if buffer.freed:
                raise ValueError(f"the buffer at {buffer.address:#x} was freed twice")
            buffer.freed = True
            size = max(1, -(-buffer.nbytes // ALIGNMENT)) * ALIGNMENT
            self._gaps = _merged([*self._gaps, (buffer.address, buffer.address + size)])

    def array(self, tensor: DeviceTensor) -> np.ndarray[Any, Any]:
        """The tensor's bytes as an array: for the device alone."""
        return np.ndarray(tensor.shape, tensor.dtype, self.bytes, tensor.address)


def _merged(gaps: list[tuple[int, int]]) -> list[tuple[int, int]]:
    result: list[tuple[int, int]] = []
    for start, end in sorted(gaps):
        if result and result[-1][1] == start:
            result[-1] = (result[-1][0], end)
        else:
            result.append((start, end))
    return result


class NpuAllocator(Allocator):
    """The door of the core to DRAM; copies wait in the queue like all other work."""

    alignment = ALIGNMENT

    def __init__(self, dram: Dram, out_of_memory: Callable[[], bool] = lambda: False) -> None:
        self.dram = dram
        self._out_of_memory = out_of_memory

    def allocate(self, nbytes: int) -> Buffer:
        if self._out_of_memory():
            raise MemoryError(f"{nbytes:,} bytes of DRAM wanted, and the fault that was ordered leaves none")
        return self.dram.allocate(nbytes)

    def free(self, buffer: Any) -> None:
        self.dram.free(buffer)

    def view(self, buffer: Any, offset: int, shape: Sequence[int], dtype: np.dtype[Any]) -> DeviceTensor:
        if buffer.freed:
            raise ValueError(f"the buffer at {buffer.address:#x} was freed and has no views")
        return DeviceTensor(buffer, buffer.address + offset, tuple(shape), np.dtype(dtype))

    def copy_in(self, array: np.ndarray[Any, Any], tensor: Any, stream: Stream) -> None:
        _queue(stream)(lambda: np.copyto(self.dram.array(tensor), array))

    def copy_out(self, tensor: Any, array: np.ndarray[Any, Any], stream: Stream) -> None:
        _queue(stream)(lambda: np.copyto(array, self.dram.array(tensor)))


def _queue(stream: Stream) -> Any:
    submit = getattr(stream, "submit", None)
    if submit is None:
        raise TypeError(f"a copy was enqueued on a {type(stream).__name__}, not on a stream of this device")
    return submit


def box_view(data: np.ndarray[Any, Any], address: int, op: isa.Load | isa.Store) -> np.ndarray[Any, Any]:
    """A strided box of DRAM as an array of opaque elements.

    Raises:
        IndexError: if it reaches out of the memory.
    """
    reach = sum((n - 1) * s for n, s in ((op.n0, op.s0), (op.n1, op.s1), (op.n2, op.s2))) + op.size
    if op.n0 * op.n1 * op.n2 and (address < 0 or address + reach > len(data)):
        raise IndexError(f"a transfer reaches {address + reach:#x}, beyond the end of DRAM")
    start = np.ndarray((1,), f"V{op.size}", data, address)
    return as_strided(start, (op.n0, op.n1, op.n2), (op.s0, op.s1, op.s2))


# ---- weight compression: which bytes are not zero, then those ----


def packed(data: np.ndarray[Any, Any]) -> bytes:
    """Bytes as a bit mask and what is not zero."""
    flat = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
    mask = flat != 0
    return bytes(np.packbits(mask).tobytes() + flat[mask].tobytes())


def unpacked(data: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    """The ``count`` bytes that ``packed`` was given."""
    mask_bytes = -(-count // 8)
    mask = np.unpackbits(data[:mask_bytes], count=count).astype(bool)
    result = np.zeros(count, np.uint8)
    result[mask] = data[mask_bytes : mask_bytes + int(mask.sum())]
    return result.view("V1")
