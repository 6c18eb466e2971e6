"""Saved programs: what a provider compiled, with everything that must be equal for it to be used again.

An artifact is a header line (JSON) and the provider's own bytes, which begin at a multiple of 64. The header holds a
digest of the bytes and the fingerprint of what they were compiled from: contract, provider, its version, driver and
device, options, and the subgraph with its weights. If anything differs, the artifact is refused.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import xxhash

from ..errors import ArtifactError, EpkitError, Where
from ..model.seal import is_settled, mapped, set_back, stamp_of
from .blame import blame
from .bound import Bound
from .contract import CONTRACT_VERSION
from .program import Program
from .subgraph import Subgraph

MAGIC = "epkit-artifact-2"
ALIGNMENT = 64
"""Of the provider's bytes in the file: they may hold arrays that are used where they lie."""

Pieces = Sequence[bytes | memoryview]


def fingerprint(bound: Bound, subgraph: Subgraph, origin: str = "") -> dict[str, str]:
    """Everything that a compiled program depends on, by name.

    Args:
        bound: the provider.
        subgraph: what it compiles.
        origin: a digest of the whole model, weights included, and of all that its optimised form depends on: then
            the weights need not be read once more.
    """
    provider = bound.provider
    return {
        "contract": str(CONTRACT_VERSION),
        "provider": provider.name,
        "version": str(provider.version),
        "device": provider.fingerprint(bound.device),
        "options": repr(provider.options),
        "subgraph": subgraph.digest() if not origin else f"{origin}:{_structure(subgraph)}",
    }


def _structure(subgraph: Subgraph) -> str:
    """Which part of a known model it is."""
    nodes = [(n.name, n.domain, n.op_type, [v.name for v in n.outputs], n.version) for n in subgraph.nodes]
    ends = [[value.name for value in values] for values in (subgraph.inputs, subgraph.outputs)]
    return str(xxhash.xxh3_128_hexdigest(repr((nodes, ends)).encode()))


def pack(bound: Bound, subgraph: Subgraph, program: Program, origin: str = "") -> Pieces | None:
    """The program as an artifact, in pieces; None if the provider does not save programs.

    Raises:
        BrokenProviderError: if the provider raises in ``save``.
    """
    with blame(bound.name, "save", "compile"):
        payload = bound.provider.save(program)
    if payload is None:
        return None
    pieces: Pieces = (payload,) if isinstance(payload, bytes | memoryview) else tuple(payload)
    digest = xxhash.xxh3_128()
    for piece in pieces:
        digest.update(piece)
    header = {
        "magic": MAGIC,
        "digest": digest.hexdigest(),
        "fingerprint": fingerprint(bound, subgraph, origin),
    }
    line = json.dumps(header).encode("utf-8")
    return line + b" " * (-(len(line) + 1) % ALIGNMENT) + b"\n", *pieces


def unpack(
    bound: Bound, subgraph: Subgraph, artifact: bytes | memoryview, origin: str = "", trusted: str = ""
) -> Program:
    """The program in an artifact.

    Args:
        bound: the provider.
        subgraph: what the program was compiled from.
        artifact: what :func:`pack` gave.
        origin: as it was given to :func:`pack`.
        trusted: the digest that the bytes are known to have, if they are.

    Raises:
        ArtifactError: if it is damaged, or was made from anything else; says what differs.
        BrokenProviderError: if the provider raises in ``restore``.
    """
    where = Where(stage="compile", provider=bound.name, partition=subgraph.name)
    header, payload = _split(artifact)
    if not _is_whole(header, payload, trusted):
        raise ArtifactError(
            "the saved program is damaged", where=where, remedy="delete it; it is compiled again"
        )
    present, made_from = fingerprint(bound, subgraph, origin), dict(header.get("fingerprint", {}))
    changed = [name for name in present if made_from.get(name) != present[name]]
    if changed:
        raise ArtifactError(
            f"the saved program was made for another {', '.join(changed)}",
            where=where,
            remedy="delete it; it is compiled again",
        )
    with blame(bound.name, "restore", "compile"):
        return bound.provider.restore(payload if bound.provider.maps_saved else bytes(payload), subgraph)


def _split(artifact: bytes | memoryview) -> tuple[dict[str, Any], memoryview]:
    """Header and payload; an empty header if it is none."""
    view = memoryview(artifact)
    head, _, _ = bytes(view[: 1 << 16]).partition(b"\n")
    try:
        header = json.loads(head)
    except ValueError:
        header = None
    return header if isinstance(header, dict) else {}, view[len(head) + 1 :]


def _is_whole(header: Mapping[str, Any], payload: memoryview, trusted: str) -> bool:
    """True if it is an artifact, with the bytes that were written (``trusted``: the digest they are known to have)."""
    digest = header.get("digest", "")
    return header.get("magic") == MAGIC and (
        digest == trusted or digest == xxhash.xxh3_128_hexdigest(payload)
    )


class ArtifactStore:
    """Artifacts in a folder, one file each, named by their fingerprint. Safe under concurrent writers.

    Beside each lies what the file system said of it when it was last found whole; until that changes, its bytes are
    not read to be checked.

    Args:
        folder: where.
        origin: see :func:`fingerprint`.
    """

    def __init__(self, folder: str | os.PathLike[str], origin: str = "") -> None:
        self.folder, self.origin = Path(folder), origin

    def load(self, bound: Bound, subgraph: Subgraph) -> Program | None:
        """A program from the store; None if there is none, or only a damaged one."""
        path = self.path(bound, subgraph)
        stamp = stamp_of(path)
        try:
            program = unpack(bound, subgraph, mapped(path), self.origin, self._trusted(path))
            self._note(path, stamp)
        except FileNotFoundError:
            return None
        except EpkitError:
            path.unlink(missing_ok=True)
            return None
        return program

    def revive(self, bound: Bound, name: str, weights: Mapping[str, Any]) -> Program | None:
        """A program from the store without its subgraph; None if it is damaged, or the provider cannot do that.

        Args:
            bound: the provider.
            name: of the file; the caller knows that everything in its fingerprint is as it was.
            weights: the model's weights that are kept beside, by name.
        """
        path = self.folder / name
        stamp = stamp_of(path)
        try:
            header, payload = _split(mapped(path))
        except FileNotFoundError:
            return None
        if not _is_whole(header, payload, self._trusted(path)):
            return None
        self._note(path, stamp)
        try:
            with blame(bound.name, "revive", "compile"):
                return bound.provider.revive(
                    payload if bound.provider.maps_saved else bytes(payload), weights
                )
        except EpkitError:
            path.unlink(missing_ok=True)  # to be compiled and saved again
            return None

    def save(self, bound: Bound, subgraph: Subgraph, program: Program) -> None:
        """Keep a program, if its provider saves programs."""
        pieces = pack(bound, subgraph, program, self.origin)
        if pieces is None:
            return
        path = self.path(bound, subgraph)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(path, pieces)
        self._note(path, stamp_of(path))

    def _note(self, path: Path, stamp: tuple[int, ...]) -> None:
        """Note how a program looked before it was found whole, unless that is known, or it is too new."""
        if self._trusted(path) or not is_settled((*stamp[:4], 0)):
            return
        seen = {"digest": _split(mapped(path))[0]["digest"], "stamp": stamp}
        with suppress(OSError):  # the folder may be another's
            self._write(_seen(path), (json.dumps(seen).encode("utf-8"),))

    def _write(self, path: Path, pieces: Pieces) -> None:
        handle, name = tempfile.mkstemp(dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                for piece in pieces:
                    file.write(piece)
            set_back(Path(name))
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _trusted(self, path: Path) -> str:
        try:
            seen = json.loads(_seen(path).read_text(encoding="utf-8"))
            return str(seen["digest"]) if tuple(seen["stamp"]) == stamp_of(path) else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def path(self, bound: Bound, subgraph: Subgraph) -> Path:
        """Where a program is or would be."""
        key = json.dumps(fingerprint(bound, subgraph, self.origin), sort_keys=True).encode("utf-8")
        return self.folder / f"{bound.name}-{xxhash.xxh3_128_hexdigest(key)}.program"


def _seen(path: Path) -> Path:
    return path.with_suffix(".seen")
