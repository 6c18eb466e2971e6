"""Optimised models in a folder, so that a later load neither checks nor optimises.

An entry is two files of ONNX's own (the graph, and its weights, aligned to be mapped) and a manifest, which is
written last and holds digests of both. It is found by a digest of the model's bytes, weights included, and of
everything that the result depends on. A damaged or half-written entry is as good as none: it is made again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import xxhash

from .backend.bound import Bound
from .backend.contract import CONTRACT_VERSION
from .backend.registry import Registry
from .errors import EpkitError
from .knobs import STOP_AFTER
from .known import KnownFile, read_sealed, write_sealed
from .model.check import CheckedModel
from .model.infer import weightless
from .model.limits import Limits
from .model.long_lists import LongAttr
from .model.read import ReadModel, read
from .model.seal import Seal, is_settled, seal, set_back, stamp_of
from .model.walk import all_graphs
from .model.write import places_of, restore_versions, write
from .optimize.optimise import Optimised
from .settings import Settings, may_be_known

FORMAT = "epkit-model-3"


@dataclass(frozen=True)
class CachedModel:
    """What an entry holds."""

    checked: CheckedModel
    optimised: Optimised


class ModelCache:
    """One model's entry in a folder. Safe under concurrent writers: files take their names when they are whole."""

    def __init__(self, folder: str | os.PathLike[str], key: str) -> None:
        self.graph = Path(folder) / f"{key}.onnx"
        self.data = Path(folder) / f"{key}.onnx.data"
        self.manifest = Path(folder) / f"{key}.json"
        self.key = key

    def load(self, name: str, path: Path | None, limits: Limits) -> CachedModel | None:
        """The entry, with its weights mapped; None if there is none that is whole."""
        try:
            stored: dict[str, Any] = read_sealed(self.manifest)
            seals = [Seal.from_json(each) for each in stored["seals"]]
            files = (self.graph, self.data)
            stamps = [stamp_of(file) for file in files]  # before they are read
            if stored["format"] != FORMAT or not all(map(Seal.holds, seals, files)):
                return None
            model = read(self.graph, limits=limits).model
            restore_versions(model)
            self._renew(stored, seals, stamps)
            checked = CheckedModel(model, name, path, tuple(stored["warnings"]), tuple(stored["overridable"]))
            return CachedModel(checked, Optimised(model, str(stored["level"]), (), int(stored["nodes"])))
        except (OSError, ValueError, KeyError, TypeError, EpkitError):
            return None

    def _renew(self, stored: dict[str, Any], seals: list[Seal], stamps: list[tuple[int, ...]]) -> None:
        """Note how files look that were found whole by their digests, as after a copy: the next load trusts them."""
        found = [Seal(old.digest, stamp) for old, stamp in zip(seals, stamps, strict=True)]
        if found != seals and all(map(is_settled, stamps)):
            with suppress(OSError):  # the folder may be another's
                write_sealed(self.manifest, {**stored, "seals": [each.as_json() for each in found]})

    def save(self, checked: CheckedModel, optimised: Optimised) -> None:
        """Keep an optimised model. What cannot be written as a file is not kept."""
        self.graph.parent.mkdir(parents=True, exist_ok=True)
        self.manifest.unlink(missing_ok=True)
        try:
            write(optimised.model, self.graph, external_data=True, mixed_versions=True)
        except EpkitError:
            return
        for path in (self.graph, self.data):
            set_back(path)
        stored = {
            "format": FORMAT,
            "seals": [seal(path).as_json() for path in (self.graph, self.data)],
            "warnings": checked.warnings,
            "overridable": checked.overridable,
            "level": optimised.level,
            "nodes": optimised.nodes_before,
            "weights": places_of(optimised.model),
        }
        write_sealed(self.manifest, stored)


def cache_key(
    raw: ReadModel, settings: Settings, registry: Registry, bounds: Sequence[Bound], version: str
) -> str:
    """A digest of the model and of all that its optimised form depends on.

    A file that nobody has written to since its digest was found is not read for it again.
    """
    settled = settings_digest(settings, registry, bounds, version)
    known = None
    if raw.path is not None and may_be_known(settings):
        assert settings.cache is not None
        known = KnownFile(raw.path, settings.cache, raw.external)
        if settled.hexdigest() in known.keys:
            return known.keys[settled.hexdigest()]
    key = _digest(settled, raw)
    if known is not None:
        known.keep(settled.hexdigest(), key)
    return key


def settings_digest(
    settings: Settings, registry: Registry, bounds: Sequence[Bound], version: str
) -> xxhash.xxh3_128:
    """All that an optimised model depends on besides the model."""
    parts: list[Any] = [
        (
            FORMAT,
            CONTRACT_VERSION,
            version,
            settings.optimise,
            STOP_AFTER.get(),
            sorted(settings.fix.items()),
        ),
        [f"{rewrite.__module__}.{rewrite.__qualname__}" for rewrite in registry.rewrites()],
    ]
    for bound in bounds:
        provider = bound.provider
        parts.append((provider.name, provider.version, provider.fingerprint(bound.device), provider.options))
    return xxhash.xxh3_128(repr(parts).encode())


def _digest(settled: xxhash.xxh3_128, raw: ReadModel) -> str:
    digest = settled.copy()
    skeleton = raw.skeleton if raw.skeleton is not None else weightless(raw.model)
    digest.update(skeleton.SerializeToString(deterministic=True))
    for part in _weights(raw.model):
        digest.update(part)
    return str(digest.hexdigest())


def _weights(model: ir.Model) -> Iterator[Any]:
    """The bytes of every weight, and of tensors in attributes, mapped and not copied."""
    owners: list[ir.Graph] = list(all_graphs(model.graph))
    nodes = [node for graph in owners for node in graph]
    nodes += [node for function in model.functions.values() for node in function]
    for graph in owners:
        for name, value in sorted(graph.initializers.items()):
            yield name.encode()
            if value.const_value is not None:
                yield from _bytes(value.const_value)
    for node in nodes:
        yield from _attribute_bytes(node.attributes)


def _attribute_bytes(attributes: Mapping[str, ir.Attr]) -> Iterator[Any]:
    for name, attribute in attributes.items():
        if isinstance(attribute, LongAttr):
            yield name.encode()
            yield attribute.value.array
            yield repr(attribute.value.words).encode()
        elif not attribute.is_ref() and attribute.type.name == "TENSOR":
            yield name.encode()
            yield from _bytes(attribute.value)


def _bytes(tensor: ir.TensorProtocol) -> Iterator[Any]:
    if tensor.dtype == ir.DataType.STRING:
        yield repr(list(tensor.numpy().ravel())).encode()
        return
    array = tensor.numpy()
    if array.nbytes:
        yield array.reshape(-1).view("u1").data if array.flags.c_contiguous else tensor.tobytes()
