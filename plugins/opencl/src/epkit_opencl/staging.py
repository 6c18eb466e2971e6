"""Pinned memory of the host, through which copies go to devices that have memory of their own."""

from __future__ import annotations

from typing import Any

import numpy as np

from .device import Gpu

SIZE = 16 << 20
"""Bytes; what does not fit goes as it is, and the driver pins it by itself."""

ALIGNMENT = 256


class Staging:
    """One pinned buffer of a queue, mapped once. Its space is taken from the front until the queue is synchronised."""

    def __init__(self, gpu: Gpu, queue: Any) -> None:
        self.gpu, self.queue = gpu, queue
        self._memory: np.ndarray[Any, Any] | None = None
        self._buffer: Any = None
        self._used = 0
        self._awaited: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []

    def filled(self, data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Pinned bytes with a copy of the data; the data themselves where there is no room."""
        pinned = self._take(data.nbytes)
        if pinned is None:
            return data
        np.copyto(pinned, data)
        return pinned

    def awaited(self, target: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Pinned bytes for the device to write; ``deliver`` copies them to the target."""
        pinned = self._take(target.nbytes)
        if pinned is None:
            return target
        self._awaited.append((pinned, target))
        return pinned

    def deliver(self) -> None:
        """The queue is done: results go where they belong, and all space is free."""
        for pinned, target in self._awaited:
            np.copyto(target, pinned)
        self._awaited.clear()
        self._used = 0

    def _take(self, nbytes: int) -> np.ndarray[Any, Any] | None:
        if self._used + nbytes > SIZE:
            return None
        memory = self._mapped()
        start = self._used
        self._used += -(-nbytes // ALIGNMENT) * ALIGNMENT
        return memory[start : start + nbytes]

    def _mapped(self) -> np.ndarray[Any, Any]:
        import pyopencl as cl

        if self._memory is None:
            flags = cl.mem_flags.READ_WRITE | cl.mem_flags.ALLOC_HOST_PTR
            self._buffer = cl.Buffer(self.gpu.context, flags, SIZE)
            mapped: Any = cl.enqueue_map_buffer
            access = cl.map_flags.READ | cl.map_flags.WRITE
            self._memory = mapped(self.queue, self._buffer, access, 0, (SIZE,), np.uint8)[0]
        assert self._memory is not None
        return self._memory
