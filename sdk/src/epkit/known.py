"""What the cache knows of model files that nobody has written to since: their keys, without reading them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import xxhash

from .model.seal import is_settled, stamp_of


class KnownFile:
    """The keys of a model file, beside what the file system said of it, and of the files of its external data.

    Args:
        path: of the model.
        cache: the folder.
        external: the files of its external data, if the model has been read; else those that it had are looked at.

    Attributes:
        keys: by the digest of settings; none if the file has been written to since.
        snapshots: of those models that have a snapshot, the key by the digest of what a session was asked for.
    """

    def __init__(
        self, path: Path, cache: str | os.PathLike[str], external: Sequence[Path] | None = None
    ) -> None:
        self.stamps = {str(found.absolute()): stamp_of(found) for found in (path, *(external or ()))}
        self.file = Path(cache) / f"{xxhash.xxh3_128_hexdigest(str(path.absolute()).encode())}.known"
        self.keys: dict[str, str] = {}
        self.snapshots: dict[str, str] = {}
        try:
            stored = read_sealed(self.file)
            stamps = {str(name): tuple(stamp) for name, stamp in stored["stamps"].items()}
            if external is None:
                self.stamps |= {name: stamp_of(Path(name)) for name in stamps}
            if all(stamps.values()) and stamps == self.stamps:
                self.keys = {str(name): str(key) for name, key in stored["keys"].items()}
                self.snapshots = {str(name): str(key) for name, key in stored["snapshots"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # there is none, or it is damaged: the model is read

    def keep(self, settings: str, key: str) -> None:
        """Note a key, unless the file is so new that a change might not show."""
        if all(map(is_settled, self.stamps.values())):
            self.keys[settings] = key
            self._write()

    def keep_snapshot(self, asked: str, key: str) -> None:
        """Note a snapshot of a model whose key is known."""
        if key in self.keys.values():
            self.snapshots[asked] = key
            self._write()

    def _write(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_sealed(self.file, {"stamps": self.stamps, "keys": self.keys, "snapshots": self.snapshots})


def read_sealed(path: Path) -> Any:
    """What :func:`write_sealed` wrote.

    Raises:
        OSError: there is no such file.
        ValueError: it is damaged.
    """
    digest, _, text = path.read_text(encoding="utf-8").partition("\n")
    if digest != xxhash.xxh3_128_hexdigest(text.encode("utf-8")):
        raise ValueError(f"{path} is damaged")
    return json.loads(text)


def sealed(value: Any) -> str:
    """A value as JSON, below a line with its digest."""
    text = json.dumps(value)
    return f"{xxhash.xxh3_128_hexdigest(text.encode('utf-8'))}\n{text}"


def write_sealed(path: Path, value: Any) -> None:
    """Write a value for :func:`read_sealed`; the file is there once it is whole. What is there already stays."""
    text = sealed(value)
    with suppress(OSError, ValueError):
        if path.read_text(encoding="utf-8") == text:
            return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
