"""Digests of what a result depends on: the plugin's files, the suite, the core, the corpus.

A plugin's digest is the same for an editable checkout, an installed wheel and the wheel file itself, if the files
are: it covers what Python installs (sources, data, native libraries) by path and content, and no metadata.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import epkit
from epkit.backend.registry import PROVIDER_GROUP, default
from epkit.errors import InputError

from .case import Case

Hashes = dict[str, str]
"""Path with slashes -> SHA-256 of the content, sorted by path."""


def digest_of(value: Any) -> str:
    """SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def plugin_files(provider: str) -> Hashes:
    """The files of the package that brings the provider."""
    entries = importlib.metadata.entry_points(group=PROVIDER_GROUP)
    entry = next((entry for entry in entries if entry.name == provider), None)
    if entry is None:  # registered in this process: the module that defines it
        source = getattr(sys.modules.get(default.provider_type(provider).__module__), "__file__", None)
        return hashes_of({Path(source).name: Path(source)}) if source else {}
    recorded = _recorded(entry.dist)
    return hashes_of(recorded) if recorded else package_files(entry.module.partition(".")[0])


def _recorded(distribution: importlib.metadata.Distribution | None) -> dict[str, Path]:
    """The files that the wheel's RECORD names, where they are; an editable install names none of worth."""
    files = (distribution.files if distribution is not None else None) or []
    found = {file.as_posix(): Path(str(file.locate())) for file in files if _counts(file.as_posix())}
    return {name: path for name, path in found.items() if path.is_file()}


def package_files(package: str) -> Hashes:
    """The files of an importable top-level package or module, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return {}
    if not spec.submodule_search_locations:
        return hashes_of({f"{package}.py": Path(spec.origin)}) if spec.origin else {}
    found = {}
    for folder in map(Path, spec.submodule_search_locations):
        for path in folder.rglob("*"):
            name = PurePosixPath(package, *path.relative_to(folder).parts).as_posix()
            if path.is_file() and _counts(name):
                found[name] = path
    return hashes_of(found)


def wheel_files(wheel: Path) -> Hashes:
    """The files of a wheel.

    Raises:
        InputError: if it is none.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = sorted(name for name in archive.namelist() if not name.endswith("/") and _counts(name))
            return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in names}
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{wheel} is no wheel: {error}", remedy="check the path of --wheel") from None


def _counts(name: str) -> bool:
    """Code and data; no metadata, scripts, caches, and no path configuration of editable installs."""
    parts = PurePosixPath(name).parts
    if ".." in parts or "__pycache__" in parts or name.endswith((".pyc", ".pth")):
        return False
    return not parts[0].endswith((".dist-info", ".egg-info")) and not parts[0].startswith("__editable__")


def hashes_of(files: Mapping[str, Path]) -> Hashes:
    """Each file's SHA-256."""
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sorted(files.items())}


def suite_digest() -> str:
    """The suite's own files."""
    return digest_of(package_files(__package__.partition(".")[0]))


def core_digest() -> str:
    """The files of epkit itself, which decides what runs where and keeps the record."""
    return digest_of(package_files(epkit.__name__))


def corpus_digest(cases: Iterable[Case]) -> str:
    """Names, places and oracles of all cases. Data follow from the names (the seeds), the suite, ONNX, NumPy."""
    return digest_of([[c.name, c.level, c.group, c.operator, c.version, c.dtype, c.oracle] for c in cases])
