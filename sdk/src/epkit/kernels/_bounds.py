"""How large a result may be that a shape, a count or an index in a model or its inputs asks for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from .. import knobs

SMALL = 1 << 20
"""Bytes that are always fine: the limit is not even looked up."""
UNKNOWN_MEMORY = 16 << 30
CGROUP = Path("/sys/fs/cgroup/memory.max")


def bounded(shape: Sequence[int], x: Any = None, what: str = "the result") -> tuple[int, ...]:
    """``shape``, if an array of it with ``x``'s element type (8 bytes without one) can be meant seriously.

    Raises:
        ValueError: if a dimension is negative, or the array would be larger than `largest` allows.
    """
    if any(n < 0 for n in shape):
        raise ValueError(
            f"{what} would have the shape {tuple(shape)}, with the negative dimension {min(shape)}"
        )
    size = prod(shape) * (8 if x is None else x.dtype.itemsize)
    if size > SMALL and size > largest():
        raise ValueError(
            f"{what}, of shape {tuple(shape)} with {_readable(size)}, would exceed {_readable(largest())} "
            f"(set {knobs.LARGEST_RESULT.name} to allow more)"
        )
    return tuple(shape)


def largest() -> int:
    """Bytes: what EPKIT_LARGEST_RESULT says, by default half of the memory that this process may use."""
    return knobs.LARGEST_RESULT.get() or _memory() // 2


@cache
def _memory() -> int:
    try:
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return UNKNOWN_MEMORY
    try:
        text = CGROUP.read_text("ascii").strip()
    except OSError:
        return found
    return min(found, int(text)) if text.isdecimal() else found


def _readable(size: int) -> str:
    return f"{size / (1 << 30):,.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):,.1f} MiB"
