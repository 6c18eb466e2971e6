"""What kernels made of constants (packed weights): made at load, or found in a saved program, mapped.

The saved form is a line of JSON, [what was asked for, offset, bytes] of each array, then the arrays at multiples of 64.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .pages import let_go

ALIGNMENT = 64

Array = np.ndarray[Any, Any]


class Prepared:
    """Arrays of bytes in the order in which the lowerings ask for them; the same nodes ask for the same.

    Args:
        saved: what :meth:`pieces` gave, one after the other; empty if nothing is saved.
    """

    def __init__(self, saved: memoryview | bytes = b"") -> None:
        self._saved = memoryview(saved)
        self._index: list[tuple[str, int, int]] = []
        self._base = 0
        if len(saved):
            length = int.from_bytes(self._saved[:8], "little")
            self._index = [(str(k), int(o), int(n)) for k, o, n in json.loads(bytes(self._saved[8:length]))]
            self._base = length
        self._views: dict[int, Array] = {}
        self._kept: list[tuple[str, Array]] = []
        self._asked: dict[tuple[object, ...], tuple[str, Array, list[weakref.ref[Array] | None]]] = {}
        """By the constants' identity: for the many nodes of a model that read the same one."""
        self._known: dict[tuple[object, ...], tuple[Array, list[weakref.ref[Array]]]] = {}

    def get(
        self, kernel: str, attributes: bytes, arrays: Sequence[Array | None], make: Callable[[], Array]
    ) -> Array:
        """The next array: the saved one if it is of the same kind, else made, once from the same constants."""
        asked = (kernel, attributes, *map(id, arrays))
        again = self._asked.get(asked)
        if again is not None and all(map(_is_still, again[2], arrays)):
            self._kept.append(again[:2])
            return again[1]
        shapes = [None if array is None else (str(array.dtype), array.shape) for array in arrays]
        key = f"{kernel} {attributes.hex()} {shapes}"
        place = len(self._kept)
        known, offset, count = self._index[place] if place < len(self._index) else ("", 0, 0)
        made = self._view(offset, count) if known == key else self._made(key, arrays, make)
        self._kept.append((key, made))
        self._asked[asked] = key, made, [None if array is None else weakref.ref(array) for array in arrays]
        return made

    def _view(self, offset: int, count: int) -> Array:
        if offset not in self._views:
            begin = self._base + offset
            self._views[offset] = np.frombuffer(self._saved[begin : begin + count], np.uint8)
        return self._views[offset]

    def _made(self, key: str, arrays: Sequence[Array | None], make: Callable[[], Array]) -> Array:
        asked = (key, *(None if array is None else _place(array) for array in arrays))
        again, owners = self._known.get(asked, (None, []))
        if again is not None and all(owner() is not None for owner in owners):
            return again
        made = make()
        for array in arrays:
            if array is not None:
                let_go(array)
        self._known[asked] = made, [_owner(array) for array in arrays if array is not None]
        return made

    def pieces(self) -> list[bytes | memoryview]:
        """All arrays so far, to be written one after the other."""
        index: list[tuple[str, int, int]] = []
        data: list[bytes | memoryview] = []
        offset = 0
        places: dict[int, int] = {}
        for key, array in self._kept:
            index.append((key, places.setdefault(id(array), offset), array.nbytes))
            if places[id(array)] != offset:
                continue  # written already
            rest = -array.nbytes % ALIGNMENT
            data += [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, bytes(rest)]
            offset += array.nbytes + rest
        text = json.dumps(index).encode("utf-8")
        length = -(-(8 + len(text)) // ALIGNMENT) * ALIGNMENT
        return [length.to_bytes(8, "little") + text.ljust(length - 8), *data]


def _is_still(known: weakref.ref[Array] | None, array: Array | None) -> bool:
    """Whether an array is the one that had its identity before."""
    return (known is None and array is None) or (known is not None and known() is array)


def _place(array: Array) -> tuple[object, ...]:
    """What two arrays of the same elements in the same memory have in common, besides shape and type."""
    return array.__array_interface__["data"][0], array.strides


def _owner(array: Array) -> weakref.ref[Array]:
    """The array whose memory this one is a view of: while it lives, nothing else is in that place."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return weakref.ref(array)
