"""Opens external data files, and none that the model has no right to.

A model names its weights by a path relative to its folder (TensorProto.external_data, "location"). A hostile
model would name a file elsewhere, or one that blocks. Rules:

* The text: relative, forward slashes, no `..`, no drive, no NUL. Nothing is decoded or expanded (%, ~, $).
* The file: a regular one, whose path after following all symbolic links lies in the model's folder, or in
  the folder that the model file itself really lies in (a Hugging Face cache is made of such links).
* The descriptor: opened first without blocking, then checked to be that very file (same device and inode),
  so that nobody can swap it between check and use.
* Hard links are allowed: they cannot be told from the file itself, a model cannot make one, and package
  managers (uv, conda, pnpm) install by hard link.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from epkit.errors import ExternalDataError, UnsafeModelError, Where

_DRIVE = re.compile(r"[A-Za-z]:")
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)


def map_descriptor(descriptor: int) -> mmap.mmap | bytes:
    """Map a whole regular file read-only; an empty file, which cannot be mapped, gives empty bytes."""
    if os.fstat(descriptor).st_size == 0:
        return b""
    if sys.version_info >= (3, 13):
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ, trackfd=False)
    return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)


@dataclass
class ExternalFiles:
    """The external files of one model, each mapped once.

    Args:
        model: path of the model file, if it was read from one.
        folder: the folder that locations are relative to; None if unknown.
    """

    model: Path | None
    folder: Path | None
    _maps: dict[str, mmap.mmap | bytes] = field(default_factory=dict)

    def open(self, location: str) -> mmap.mmap | bytes:
        """The map of a file named by a model.

        Raises:
            UnsafeModelError: the location leaves the model's folder, or is no regular file.
            ExternalDataError: the file is missing or unreadable, or the folder is unknown.
        """
        if location not in self._maps:
            self._maps[location] = self._open(location)
        return self._maps[location]

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that were opened."""
        return () if self.folder is None else tuple(self.folder / location for location in self._maps)

    def close(self) -> None:
        """Unmap everything, for when reading failed and no tensor was made."""
        for mapping in self._maps.values():
            if isinstance(mapping, mmap.mmap):
                with suppress(BufferError):
                    mapping.close()
        self._maps.clear()

    def _open(self, location: str) -> mmap.mmap | bytes:
        _refuse_unsafe_text(location)
        if self.folder is None:
            raise ExternalDataError(
                f"The model keeps weights in the external file {location!r}, but came without a folder.",
                where=Where(file=location),
                remedy="give the folder, read(source, base_dir=...), or read the model from its path",
            )
        path = self.folder / location
        try:
            return self._open_inside(path, location)
        except FileNotFoundError:
            raise ExternalDataError(
                f"The external data file {location!r} is missing from the model's folder.",
                where=Where(file=str(path)),
                remedy="copy or download it next to the model; the two belong together",
            ) from None
        except OSError as error:
            raise ExternalDataError(
                f"The external data file {location!r} cannot be read: {error.strerror or error}.",
                where=Where(file=str(path)),
                remedy="check the file and its permissions",
            ) from None

    def _open_inside(self, path: Path, location: str) -> mmap.mmap | bytes:
        # The kind is asked first because opening some devices already does something.
        _refuse_special(path, os.stat(path), location)
        descriptor = os.open(path, _FLAGS)
        try:
            opened = os.fstat(descriptor)
            _refuse_special(path, opened, location)
            real = Path(os.path.realpath(path))
            if not any(real.is_relative_to(folder) for folder in self._allowed()):
                raise UnsafeModelError(
                    f"The external data location {location!r} leads through a link to {real}, "
                    "outside the model's folder.",
                    where=Where(file=str(path)),
                    remedy="if you trust the model, put the file itself into the model's folder",
                )
            if not os.path.samestat(os.stat(real), opened):
                raise UnsafeModelError(
                    f"The external data file {location!r} was exchanged while it was opened.",
                    where=Where(file=str(path)),
                    remedy="load again once nothing writes into the folder",
                )
            return map_descriptor(descriptor)
        finally:
            os.close(descriptor)

    def _allowed(self) -> list[Path]:
        assert self.folder is not None
        allowed = [Path(os.path.realpath(self.folder))]
        if self.model is not None and self.model.parent == self.folder:
            allowed.append(Path(os.path.realpath(self.model)).parent)
        return allowed


def _refuse_unsafe_text(location: str) -> None:
    parts = location.split("/")
    reason = next(
        (
            reason
            for reason, found in (
                ("it is empty", not location),
                ("it has a NUL character", "\0" in location),
                ("it is an absolute path", location.startswith("/")),
                ("it names a drive", bool(_DRIVE.match(location))),
                ("it names a stream", os.name == "nt" and ":" in location),
                ("it has a backslash; the standard asks for forward slashes", "\\" in location),
                ("it climbs out with '..'", ".." in parts),
                ("it names a folder", parts[-1] in ("", ".")),
            )
            if found
        ),
        None,
    )
    if reason:
        raise UnsafeModelError(
            f"The external data location {location!r} is refused: {reason}.",
            where=Where(file=location),
            remedy="locations are relative to the model's folder and stay inside; save the model anew",
        )


def _refuse_special(path: Path, status: os.stat_result, location: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket"
        raise UnsafeModelError(
            f"The external data location {location!r} is {kind}, not a file.",
            where=Where(file=str(path)),
            remedy="save the model anew with its weights in an ordinary file",
        )
