"""Weights that were packed need not stay in memory: those of a mapped file are read again if somebody asks."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

LEAST = 1 << 16
"""Bytes of an array that are worth a system call."""


BLOCK = 1 << 22
"""Bytes that are copied before their pages are given back."""


def settled(array: Array) -> Array:
    """The array, or a copy that is contiguous and aligned; then the array's own pages are given back."""
    if array.dtype.kind == "O" or (array.flags.c_contiguous and array.flags.aligned):
        return array
    return _copied(array, np.empty(array.shape, array.dtype))


def _copied(array: Array, to: Array) -> Array:
    rows = max(1, BLOCK * len(array) // max(array.nbytes, 1)) if array.ndim else 1
    for row in range(0, len(array) if array.ndim else 0, rows):
        to[row : row + rows] = array[row : row + rows]
        let_go(array[row : row + rows])
    if not array.ndim:
        to[...] = array
    return to


class Scratch:
    """Memory for aligned copies of weights, the same for all: fresh memory for each would stay with the allocator."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def aligned(self, array: Array) -> Array:
        """The array, or a copy that holds until the next call; then the array's own pages are given back."""
        if array.flags.aligned and array.flags.c_contiguous:
            return array
        if self._memory.nbytes < array.nbytes:
            self._memory = np.empty(array.nbytes, np.uint8)
        return _copied(array, self._memory[: array.nbytes].view(array.dtype).reshape(array.shape))


def let_go(array: Array) -> None:
    """Give back the pages that an array fills alone, if it is a view of a mapped file."""
    mapping = _mapping(array)
    if (
        mapping is None
        or array.nbytes < LEAST
        or not array.flags.c_contiguous
        or not hasattr(mmap, "MADV_DONTNEED")
    ):
        return
    begin = _address(array) - _address(np.frombuffer(mapping, np.uint8, 1))
    first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
    last = (begin + array.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if last > first:
        mapping.madvise(mmap.MADV_DONTNEED, first, last - first)


def _mapping(array: Array) -> mmap.mmap | None:
    """The mapping that an array is a view of, if it can only be read: what was written to it would be lost."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    return base if isinstance(base, mmap.mmap) and not array.flags.writeable else None


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])
