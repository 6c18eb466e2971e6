"""A model that is one saved program: a later session starts from that, without the graph.

Nothing of the graph is read until somebody asks for more than outputs by name: the placement, a profile, an explanation
of an error. So a load takes as long as the provider needs to take up its program, and imports neither onnx nor the
stages of the pipeline. A snapshot is found by what the file system says of the model file (``known``), and by all that
its session was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from ..backend.artifact import ArtifactStore
from ..backend.bound import Bound
from ..backend.contract import CONTRACT_VERSION
from ..backend.program import Program
from ..backend.registry import Registry
from ..binding import bind, close_all
from ..dtypes import numpy_dtype
from ..knobs import STOP_AFTER
from ..known import KnownFile, read_sealed, write_sealed
from ..model.seal import Seal, mapped, stamp_of
from ..settings import Settings, may_be_known
from .value_info import ValueInfo

if TYPE_CHECKING:
    from ..compiling import Compiled

FORMAT = "epkit-snapshot-1"


@dataclass(frozen=True)
class Snapshot:
    """What a session needs in order to run.

    Attributes:
        program: of which only ``feed``, ``memory`` and ``close`` are used.
        weights: bytes of the model's.
        complete: gives the whole compiled model, when somebody asks for more.
    """

    name: str
    warnings: tuple[str, ...]
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    metadata: Mapping[str, str]
    bounds: tuple[Bound, ...]
    program: Program
    weights: int
    complete: Callable[[], Compiled]


def may_have(settings: Settings) -> bool:
    """True for what snapshots are kept for: everything that providers and the graph alone decide."""
    plain = settings.policy == "priority" and not settings.pins and not settings.operators
    return plain and may_be_known(settings)


def load_snapshot(
    path: Path, settings: Settings, registry: Registry, version: str, complete: Callable[[str], Compiled]
) -> Snapshot | None:
    """The snapshot of a model file, if there is one for these settings that is whole.

    Args:
        complete: gives the compiled model with a key of the cache.

    Raises:
        ProviderError, OptionError: as the registry does.
    """
    assert settings.cache is not None
    known = KnownFile(path, settings.cache)
    if not known.snapshots:
        return None
    bounds = bind(settings, registry)
    try:
        asked = asked_digest(settings, registry, bounds, version)
        key = known.snapshots.get(asked or "")
        found = None
        if asked and key is not None:
            found = _read(Path(settings.cache), f"{key}-{asked}", bounds, partial(complete, key))
    except BaseException:
        close_all(bounds)
        raise
    if found is None:
        close_all(bounds)
    return found


def save_snapshot(
    path: Path,
    settings: Settings,
    registry: Registry,
    version: str,
    compiled: Compiled,
    face: tuple[tuple[ValueInfo, ...], tuple[ValueInfo, ...], Mapping[str, str], int],
) -> None:
    """Keep what a later session of the same file and settings starts from, if the model is one program on the host.

    Args:
        face: the session's inputs, outputs and metadata, and the bytes of its weights.
    """
    whole = compiled.whole()
    if settings.cache is None or whole is None or whole[2].feed is None or not compiled.origin:
        return
    bound, subgraph, _ = whole
    asked = asked_digest(settings, registry, compiled.plan.partitioned.bounds, version)
    known = KnownFile(path, settings.cache)
    if asked is None or compiled.origin not in known.keys.values():
        return
    folder = Path(settings.cache)
    program = ArtifactStore(folder, compiled.origin).path(bound, subgraph)
    try:
        model = read_sealed(folder / f"{compiled.origin}.json")
    except (OSError, ValueError):
        return
    if not program.exists():
        return
    inputs, outputs, metadata, weight_bytes = face
    stored = {
        "format": FORMAT,
        "name": compiled.name,
        "warnings": compiled.warnings,
        "inputs": [asdict(info) for info in inputs],
        "outputs": [asdict(info) for info in outputs],
        "metadata": dict(metadata),
        "provider": bound.name,
        "program": program.name,
        "data": [f"{compiled.origin}.onnx.data", model["seals"][1]],
        "weights": model["weights"],
        "weight_bytes": weight_bytes,
    }
    write_sealed(folder / f"{compiled.origin}-{asked}.session", stored)
    known.keep_snapshot(asked, compiled.origin)


def asked_digest(
    settings: Settings, registry: Registry, bounds: tuple[Bound, ...], version: str
) -> str | None:
    """All that a session depends on besides the model; None where it depends on more than can be told."""
    extensions = registry.extensions()
    if extensions is None:
        return None
    parts: list[Any] = [
        (FORMAT, CONTRACT_VERSION, version, settings.optimise, settings.limits, extensions),
        (STOP_AFTER.get(), sorted(settings.fix.items())),
    ]
    for bound in bounds:
        provider, kind = bound.provider, type(bound.provider)
        parts.append((kind.__module__, kind.__qualname__, provider.name, provider.version, bound.fallback))
        parts.append((provider.fingerprint(bound.device), provider.options))
    return str(xxhash.xxh3_64_hexdigest(repr(parts).encode()))


def _read(
    folder: Path, name: str, bounds: tuple[Bound, ...], complete: Callable[[], Compiled]
) -> Snapshot | None:
    try:
        stored: dict[str, Any] = read_sealed(folder / f"{name}.session")
        data, seal = folder / str(stored["data"][0]), Seal.from_json(stored["data"][1])
        if stored["format"] != FORMAT or stamp_of(data) != seal.stamp:
            return None  # what has been copied is read in whole once, and has a new snapshot then
        bound = next(bound for bound in bounds if bound.name == stored["provider"])
        inputs, outputs = (
            tuple(ValueInfo(**{**info, "shape": _shape(info["shape"])}) for info in stored[end])
            for end in ("inputs", "outputs")
        )
        weights = Weights(data, stored["weights"])
        program = ArtifactStore(folder).revive(bound, stored["program"], weights)
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return None  # the model is loaded, and the snapshot made again
    if program is None:
        return None
    named, warnings = str(stored["name"]), tuple(stored["warnings"])
    metadata, size = stored["metadata"], int(stored["weight_bytes"])
    return Snapshot(named, warnings, inputs, outputs, metadata, bounds, program, size, complete)


def _shape(stored: list[Any] | None) -> tuple[int | str | None, ...] | None:
    return None if stored is None else tuple(stored)


class Weights(Mapping[str, np.ndarray[Any, Any]]):
    """Arrays of a data file by name; the file is mapped when the first of them is asked for.

    Args:
        path: of the file.
        places: element type, shape and offset of each.
    """

    def __init__(self, path: Path, places: Mapping[str, tuple[str, list[int], int]]) -> None:
        self._path, self._places = path, places
        self._memory: memoryview | None = None

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        kind, shape, offset = self._places[name]
        if self._memory is None:
            self._memory = mapped(self._path)
        return np.ndarray(tuple(shape), numpy_dtype(kind), self._memory, offset)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
