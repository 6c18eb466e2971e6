"""Packed weights that the sessions of a process share: made once, and kept for as long as somebody has them.

What is packed from equal bytes in the same way is equal. Arrays over a mapped file or other memory that nobody can
write are compared when a second session asks, so that the first pays nothing; of others a digest is kept.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np
import xxhash

Array = np.ndarray[Any, Any]
Arrays = Sequence[Array | None]
Pack = Callable[..., Array]
"""Takes the kernel, its attributes, the constants, and more that makes no difference to the result."""

LEAST = 1 << 14
"""Bytes of constants; below, there is nothing to gain."""


@dataclass(frozen=True, eq=False)
class _Entry:
    """What was packed, and the constants that it was packed from (None where the key has their digest)."""

    made: weakref.ref[Array]
    sources: tuple[Array | None, ...]


_entries: dict[Hashable, list[_Entry]] = {}
_lock = threading.RLock()  # an array may die, and its entry go, while somebody looks


def shared(make: Pack) -> Pack:
    """The function, which packs constants with a kernel, sharing its results among all who have the same constants."""

    @wraps(make)
    def once(kernel: int, attributes: bytes, arrays: Arrays, *rest: Any) -> Array:
        if sum(array.nbytes for array in arrays if array is not None) < LEAST:
            return make(kernel, attributes, arrays, *rest)
        key = (kernel, attributes, *map(_look, arrays))
        sources = tuple(array if array is not None and _is_fixed(array) else None for array in arrays)
        found = _find(key, sources)
        if found is None:
            found = make(kernel, attributes, arrays, *rest)
            _keep(key, sources, found)
        return found

    return once


def _find(key: Hashable, sources: tuple[Array | None, ...]) -> Array | None:
    with _lock:
        entries = tuple(_entries.get(key, ()))
    for entry in entries:
        made = entry.made()
        if made is not None and all(map(_equal, entry.sources, sources)):
            return made
    return None


def _keep(key: Hashable, sources: tuple[Array | None, ...], made: Array) -> None:
    def forget(_: object) -> None:
        with _lock:
            _entries[key].remove(entry)
            if not _entries[key]:
                del _entries[key]

    entry = _Entry(weakref.ref(made, forget), sources)
    with _lock:
        _entries.setdefault(key, []).append(entry)


def _look(array: Array | None) -> Hashable:
    """Type, shape, and a few elements or the digest of all."""
    if array is None:
        return None
    if _is_fixed(array):
        some = array[tuple(slice(None, None, max(1, dim // 8)) for dim in array.shape)].tobytes()
    else:
        some = xxhash.xxh3_128_digest(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return array.dtype.str, array.dtype.name, array.shape, some


def _is_fixed(array: Array) -> bool:
    """True if nobody can write the memory: a file mapped for reading, or bytes."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    try:
        return base is not None and memoryview(base).readonly  # type: ignore[arg-type]
    except TypeError:
        return False


def _equal(one: Array | None, other: Array | None) -> bool:
    """True if the same bytes are there. Zeros of either sign differ, and a NaN is equal to itself."""
    if one is None or other is None:
        return one is other
    if one.__array_interface__["data"] == other.__array_interface__["data"] and one.strides == other.strides:
        return True
    kind = f"u{one.dtype.itemsize}"
    return one.dtype.itemsize in (1, 2, 4, 8) and np.array_equal(one.view(kind), other.view(kind))
