"""What kernels made of constants (packed weights): made at load, or found in a saved program, mapped.

The saved form is a line of JSON, [what was asked for, offset, bytes] of each array, then the arrays at multiples of 64.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

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
        self._kept: list[tuple[str, Array]] = []

    def get(
        self, kernel: str, attributes: bytes, arrays: Sequence[Array | None], make: Callable[[], Array]
    ) -> Array:
        """The next array: the saved one if it is of the same kind, else made."""
        shapes = [None if array is None else (str(array.dtype), array.shape) for array in arrays]
        key = f"{kernel} {attributes.hex()} {shapes}"
        place = len(self._kept)
        known, offset, count = self._index[place] if place < len(self._index) else ("", 0, 0)
        if known == key:
            begin = self._base + offset
            made: Array = np.frombuffer(self._saved[begin : begin + count], np.uint8)
        else:
            made = make()
        self._kept.append((key, made))
        return made

    def pieces(self) -> list[bytes | memoryview]:
        """All arrays so far, to be written one after the other."""
        index: list[tuple[str, int, int]] = []
        data: list[bytes | memoryview] = []
        offset = 0
        for key, array in self._kept:
            index.append((key, offset, array.nbytes))
            rest = -array.nbytes % ALIGNMENT
            data += [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, bytes(rest)]
            offset += array.nbytes + rest
        text = json.dumps(index).encode("utf-8")
        length = -(-(8 + len(text)) // ALIGNMENT) * ALIGNMENT
        return [length.to_bytes(8, "little") + text.ljust(length - 8), *data]
