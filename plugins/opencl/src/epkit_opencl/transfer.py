"""Bytes between the host and tensors, and from tensor to tensor, in buffers or in shared virtual memory.

What is shared the host reads and writes itself, through a map, where the device's memory is the host's; elsewhere the
driver copies. A map waits for what is in the queue before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from .device import Gpu

Bytes = np.ndarray[Any, Any]


class Placed(Protocol):
    """Elements in a buffer or in shared virtual memory, from the byte ``offset`` on."""

    buffer: Any
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes that they take."""


def new_shared(gpu: Gpu, nbytes: int) -> Any:
    """Coarse-grained shared virtual memory; contents undefined.

    Raises:
        MemoryError: if the device has too little.
    """
    import pyopencl as cl

    try:
        return cl.SVMAllocation(gpu.context, max(1, nbytes), 0, cl.svm_mem_flags.READ_WRITE)
    except cl.Error as error:
        raise MemoryError(f"{gpu.handle.name.strip()} has no {nbytes} bytes to share: {error}") from error


def is_shared(tensor: Placed) -> bool:
    """True if kernels are given a pointer, not a buffer."""
    import pyopencl as cl

    return isinstance(tensor.buffer, cl.SVMAllocation)


def region(tensor: Placed) -> Any:
    """The tensor's bytes, for commands on shared memory."""
    import pyopencl as cl

    whole = np.frombuffer(tensor.buffer.buf, np.uint8)
    return cl.SVM(whole[tensor.offset : tensor.offset + tensor.nbytes])


def write(gpu: Gpu, queue: Any, tensor: Placed, data: Bytes) -> None:
    """Host bytes into a tensor; they stay unchanged until the queue has done it."""
    import pyopencl as cl

    if not is_shared(tensor):
        cl.enqueue_copy(queue, tensor.buffer, data, dst_offset=tensor.offset, is_blocking=False)
    elif gpu.shares_memory:
        with region(tensor).map(queue, flags=cl.map_flags.WRITE_INVALIDATE_REGION) as mapped:
            np.copyto(mapped, data)
    else:
        cl.enqueue_copy(queue, region(tensor), data, is_blocking=False)


def read(gpu: Gpu, queue: Any, tensor: Placed, data: Bytes) -> Callable[[], None] | None:
    """A tensor's bytes to the host; complete when the queue is done and what is returned, if anything, was called."""
    import pyopencl as cl

    if not is_shared(tensor):
        cl.enqueue_copy(queue, data, tensor.buffer, src_offset=tensor.offset, is_blocking=False)
    elif gpu.shares_memory:
        mapped = region(tensor).map_ro(queue, is_blocking=False)

        def deliver() -> None:
            np.copyto(data, mapped.array)
            mapped.release()

        return deliver
    else:
        cl.enqueue_copy(queue, data, region(tensor), is_blocking=False)
    return None


def copy(queue: Any, source: Placed, target: Placed) -> None:
    """From tensor to tensor, of as many bytes."""
    import pyopencl as cl

    shared = is_shared(source), is_shared(target)
    if not source.nbytes:
        return
    if all(shared):
        cl.enqueue_copy(queue, region(target), region(source), is_blocking=False)
    elif shared == (True, False):
        with region(source).map_ro(queue) as mapped:
            cl.enqueue_copy(queue, target.buffer, mapped, dst_offset=target.offset)
    elif shared == (False, True):
        with region(target).map(queue, flags=cl.map_flags.WRITE_INVALIDATE_REGION) as mapped:
            cl.enqueue_copy(queue, mapped, source.buffer, src_offset=source.offset)
    else:
        cl.enqueue_copy(
            queue,
            target.buffer,
            source.buffer,
            src_offset=source.offset,
            dst_offset=target.offset,
            byte_count=source.nbytes,
        )


def fill(queue: Any, tensor: Placed, pattern: Bytes) -> None:
    """Every element the same."""
    import pyopencl as cl

    if is_shared(tensor):
        cl.enqueue_svm_memfill(queue, region(tensor), pattern)
    else:
        cl.enqueue_fill_buffer(queue, tensor.buffer, pattern, tensor.offset, tensor.nbytes)
