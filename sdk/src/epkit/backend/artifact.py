"""Saved programs: what a provider compiled, with everything that must be equal for it to be used again.

An artifact is a header line (JSON) and the provider's own bytes. The header holds a digest of the bytes and
the fingerprint of what they were compiled from: contract, provider, its version, driver and device,
options, and the subgraph with its weights. If anything differs, the artifact is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

from ..errors import ArtifactError, EpkitError, Where
from .blame import blame
from .bound import Bound
from .contract import CONTRACT_VERSION
from .program import Program
from .subgraph import Subgraph

MAGIC = "epkit-artifact-1"


def fingerprint(bound: Bound, subgraph: Subgraph) -> dict[str, str]:
    """Everything that a compiled program depends on, by name."""
    provider = bound.provider
    return {
        "contract": str(CONTRACT_VERSION),
        "provider": provider.name,
        "version": str(provider.version),
        "device": provider.fingerprint(bound.device),
        "options": repr(provider.options),
        "subgraph": subgraph.digest(),
    }


def pack(bound: Bound, subgraph: Subgraph, program: Program) -> bytes | None:
    """The program as an artifact; None if the provider does not save programs.

    Raises:
        BrokenProviderError: if the provider raises in ``save``.
    """
    with blame(bound.name, "save", "compile"):
        payload = bound.provider.save(program)
    if payload is None:
        return None
    header = {
        "magic": MAGIC,
        "digest": hashlib.sha256(payload).hexdigest(),
        "fingerprint": fingerprint(bound, subgraph),
    }
    return json.dumps(header).encode("utf-8") + b"\n" + payload


def unpack(bound: Bound, subgraph: Subgraph, artifact: bytes) -> Program:
    """The program in an artifact.

    Raises:
        ArtifactError: if it is damaged, or was made from anything else; says what differs.
        BrokenProviderError: if the provider raises in ``restore``.
    """
    where = Where(stage="compile", provider=bound.name, partition=subgraph.name)
    head, _, payload = artifact.partition(b"\n")
    try:
        header = json.loads(head)
        known = header["magic"] == MAGIC and header["digest"] == hashlib.sha256(payload).hexdigest()
        made_from = dict(header["fingerprint"])
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise ArtifactError(
            "the saved program is damaged", where=where, remedy="delete it; it is compiled again"
        )
    present = fingerprint(bound, subgraph)
    changed = [name for name in present if made_from.get(name) != present[name]]
    if changed:
        raise ArtifactError(
            f"the saved program was made for another {', '.join(changed)}",
            where=where,
            remedy="delete it; it is compiled again",
        )
    with blame(bound.name, "restore", "compile"):
        return bound.provider.restore(payload, subgraph)


class ArtifactStore:
    """Artifacts in a folder, one file each, named by their fingerprint. Safe under concurrent writers."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def load(self, bound: Bound, subgraph: Subgraph) -> Program | None:
        """A program from the store; None if there is none, or only a damaged one."""
        path = self._path(bound, subgraph)
        try:
            return unpack(bound, subgraph, path.read_bytes())
        except FileNotFoundError:
            return None
        except EpkitError:
            path.unlink(missing_ok=True)
            return None

    def save(self, bound: Bound, subgraph: Subgraph, program: Program) -> None:
        """Keep a program, if its provider saves programs."""
        artifact = pack(bound, subgraph, program)
        if artifact is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(artifact)
            os.replace(name, self._path(bound, subgraph))
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _path(self, bound: Bound, subgraph: Subgraph) -> Path:
        key = json.dumps(fingerprint(bound, subgraph), sort_keys=True).encode("utf-8")
        return self.folder / f"{bound.name}-{hashlib.sha256(key).hexdigest()[:32]}.program"
