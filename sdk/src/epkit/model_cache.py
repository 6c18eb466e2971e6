"""Optimised models in a folder, so that a later load neither checks nor optimises.

An entry is two files of ONNX's own (the graph, and its weights, aligned to be mapped) and a manifest, which is
written last and holds digests of both. It is found by a digest of the model's bytes, weights included, and of
everything that the result depends on. A damaged or half-written entry is as good as none: it is made again.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import xxhash

from .backend.bound import Bound
from .backend.contract import CONTRACT_VERSION
from .backend.registry import Registry
from .errors import EpkitError
from .model.check import CheckedModel
from .model.infer import weightless
from .model.read import ReadModel, read
from .model.walk import all_graphs
from .model.write import write
from .optimize.optimise import Optimised
from .settings import Settings

FORMAT = "epkit-model-1"


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

    def load(self, raw: ReadModel) -> CachedModel | None:
        """The entry, with its weights mapped; None if there is none that is whole."""
        try:
            stored: dict[str, Any] = json.loads(self.manifest.read_text(encoding="utf-8"))
            if stored["format"] != FORMAT or stored["digests"] != self._digests():
                return None
            model = read(self.graph, limits=raw.limits).model
            checked = CheckedModel(
                model, raw.name, raw.path, tuple(stored["warnings"]), tuple(stored["overridable"])
            )
            return CachedModel(checked, Optimised(model, str(stored["level"]), (), int(stored["nodes"])))
        except (OSError, ValueError, KeyError, TypeError, EpkitError):
            return None

    def save(self, checked: CheckedModel, optimised: Optimised) -> None:
        """Keep an optimised model. What cannot be written as a file is not kept."""
        self.graph.parent.mkdir(parents=True, exist_ok=True)
        self.manifest.unlink(missing_ok=True)
        try:
            write(optimised.model, self.graph, external_data=True)
        except EpkitError:
            return
        stored = {
            "format": FORMAT,
            "digests": self._digests(),
            "warnings": checked.warnings,
            "overridable": checked.overridable,
            "level": optimised.level,
            "nodes": optimised.nodes_before,
        }
        temporary = self.manifest.with_name(f".{self.manifest.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(stored), encoding="utf-8")
        os.replace(temporary, self.manifest)

    def _digests(self) -> list[str]:
        return [_file_digest(self.graph), _file_digest(self.data)]


def cache_key(
    raw: ReadModel, settings: Settings, registry: Registry, bounds: Sequence[Bound], version: str
) -> str:
    """A digest of the model and of all that its optimised form depends on."""
    parts: list[Any] = [
        (FORMAT, CONTRACT_VERSION, version, settings.optimise, sorted(settings.fix.items())),
        [f"{rewrite.__module__}.{rewrite.__qualname__}" for rewrite in registry.rewrites()],
    ]
    for bound in bounds:
        provider = bound.provider
        parts.append((provider.name, provider.version, provider.fingerprint(bound.device), provider.options))
    digest = xxhash.xxh3_128(repr(parts).encode())
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
        if not attribute.is_ref() and attribute.type.name == "TENSOR":
            yield name.encode()
            yield from _bytes(attribute.value)


def _bytes(tensor: ir.TensorProtocol) -> Iterator[Any]:
    if tensor.dtype == ir.DataType.STRING:
        yield repr(list(tensor.numpy().ravel())).encode()
        return
    array = tensor.numpy()
    if array.nbytes:
        yield array.reshape(-1).view("u1").data if array.flags.c_contiguous else tensor.tobytes()


def _file_digest(path: Path) -> str:
    """A digest of a file's bytes; "" if it is not there."""
    if not path.exists():
        return ""
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return "empty"
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return str(xxhash.xxh3_128_hexdigest(view))
