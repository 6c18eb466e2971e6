"""What kernels made of constants (packed weights): made at load, or found in a saved program, mapped.

The saved form is JSON ([what was asked for, offset, bytes] of each array, and the program's image), then the arrays at
multiples of 64.
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

    Attributes:
        image: of the saved program, if it has one (``image.py``).
    """

    def __init__(self, saved: memoryview | bytes = b"") -> None:
        self._saved = memoryview(saved)
        self._index: list[tuple[str, int, int]] = []
        self.image: dict[str, Any] | None = None
        self._base = 0
        if len(saved):
            length = int.from_bytes(self._saved[:8], "little")
            head = json.loads(bytes(self._saved[8:length]))
            self._index = [(str(k), int(o), int(n)) for k, o, n in head["arrays"]]
            self.image = head["image"]
            self._base = length
        self._views: dict[tuple[int, int], Array] = {}
        self._kept: list[tuple[str, Array]] = []
        self._asked: dict[tuple[object, ...], tuple[str, Array, list[weakref.ref[Array] | None]]] = {}
        """By the constants' identity: for the many nodes of a model that read the same one."""
        self._places: dict[int, int] = {}
        self._known: dict[tuple[object, ...], tuple[Array, list[weakref.ref[Array]]]] = {}

    def get(
        self, kernel: str, attributes: bytes, arrays: Sequence[Array | None], make: Callable[[], Array]
    ) -> Array:
        """The next array: the saved one if it is of the same kind, else made, once from the same constants."""
        asked = (kernel, attributes, *map(id, arrays))
        again = self._asked.get(asked)
        if again is not None and all(map(_is_still, again[2], arrays)):
            self._keep(*again[:2])
            return again[1]
        shapes = [None if array is None else (str(array.dtype), array.shape) for array in arrays]
        key = f"{kernel} {attributes.hex()} {shapes}"
        place = len(self._kept)
        known, offset, count = self._index[place] if place < len(self._index) else ("", 0, 0)
        made = self._view(offset, count) if known == key else self._made(key, arrays, make)
        self._keep(key, made)
        self._asked[asked] = key, made, [None if array is None else weakref.ref(array) for array in arrays]
        return made

    def _view(self, offset: int, count: int) -> Array:
        if (offset, count) not in self._views:
            begin = self._base + offset
            self._views[offset, count] = np.frombuffer(self._saved[begin : begin + count], np.uint8)
        return self._views[offset, count]

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

    def keep(self, array: Array) -> int:
        """The place of an array among those that are saved; it is added if it is not there."""
        if id(array) not in self._places:
            self._keep("", array)
        return self._places[id(array)]

    def _keep(self, key: str, array: Array) -> None:
        self._places.setdefault(id(array), len(self._kept))
        self._kept.append((key, array))

    def kept(self, place: int) -> Array:
        """The bytes of a saved array."""
        _, offset, count = self._index[place]
        return self._view(offset, count)

    def packed_bytes(self) -> int:
        """Bytes of what was packed when the program was saved."""
        return sum({offset: count for key, offset, count in self._index if key}.values())

    def nbytes(self) -> tuple[int, int]:
        """Bytes of what was packed, and of that what is mapped."""
        packed = {id(array): array for key, array in self._kept if key}
        mapped = {id(view) for view in self._views.values()}
        sizes = [(array.nbytes, number in mapped) for number, array in packed.items()]
        return sum(size for size, _ in sizes), sum(size for size, is_mapped in sizes if is_mapped)

    def pieces(self, image: dict[str, Any] | None = None) -> list[bytes | memoryview]:
        """All arrays so far, to be written one after the other, and the program's image."""
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
        text = json.dumps({"arrays": index, "image": image}).encode("utf-8")
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
