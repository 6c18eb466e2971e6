"""Whether a file is what it was: by a digest, or at once where the file system says that nobody wrote to it since."""

from __future__ import annotations

import mmap
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash

SETTLED_NS = 2_000_000_000
"""A file is known by its times only if they lie so far back that a write since then would show in them."""


@dataclass(frozen=True)
class Seal:
    """A file's digest, and its place and times (device, inode, bytes, ns of the last write and change)."""

    digest: str
    stamp: tuple[int, ...]

    def holds(self, path: Path) -> bool:
        """Whether a file is the sealed one."""
        return stamp_of(path) == self.stamp or digest_of(path) == self.digest

    def as_json(self) -> dict[str, Any]:
        """For :meth:`from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Seal:
        """A seal from a file.

        Raises:
            KeyError, TypeError: it is none.
        """
        return cls(str(given["digest"]), tuple(given["stamp"]))


def seal(path: Path) -> Seal:
    """The seal of a file that nobody else writes to."""
    stamp = stamp_of(path)
    return Seal(digest_of(path), stamp)


def stamp_of(path: Path) -> tuple[int, ...]:
    """Place, size and times of a file; () if it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def set_back(path: Path) -> None:
    """Set the time of a new file's last write back, so that any later write shows, however soon it comes."""
    past = time.time_ns() - SETTLED_NS
    os.utime(path, ns=(past, past))


def is_settled(stamp: tuple[int, ...]) -> bool:
    """Whether a file that anybody may write to can be told by its stamp from now on."""
    return bool(stamp) and time.time_ns() - max(stamp[3:]) > SETTLED_NS


def digest_of(path: Path) -> str:
    """A digest of a file's bytes; "" if it is not there."""
    if not path.exists():
        return ""
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return "empty"
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return str(xxhash.xxh3_128_hexdigest(view))


def mapped(path: Path) -> memoryview:
    """A file's bytes, mapped; the map lives as long as somebody looks at it.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
