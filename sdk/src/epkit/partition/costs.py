"""What nodes and transfers cost: measured (``epkit tune``), stated in claims, else estimated from sizes.

Seconds everywhere. The estimate knows nothing of a device: it is equal for all, so that without measurements
the transfers decide.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ..backend.bound import Bound
from ..backend.claim import Claim
from ..backend.subgraph import constant_of, element_type
from ..dtypes import numpy_dtype
from ..errors import ArtifactError, Where
from ..kernels.attributes import attribute_values

OVERHEAD = 2e-6
FLOPS = 2e10
BANDWIDTH = 1e10
UNKNOWN_SIZE = 16
"""Taken for a dimension that is not known."""


@dataclass(frozen=True)
class Link:
    """The way between the host and a device: seconds for a copy, and for each byte of it."""

    latency: float = 2e-5
    per_byte: float = 2e-10

    def seconds(self, nbytes: int) -> float:
        """The time of one copy."""
        return self.latency + self.per_byte * nbytes


@dataclass
class CostTable:
    """What was measured on one device.

    Attributes:
        device: whose times these are, see :func:`device_key`.
        seconds: by the node's signature.
        to_device, to_host: copies.
        divisions: of runs of whole graphs, by :meth:`Costs.division_key`.
    """

    device: str
    seconds: dict[str, float] = field(default_factory=dict)
    to_device: Link = field(default_factory=Link)
    to_host: Link = field(default_factory=Link)
    divisions: dict[str, float] = field(default_factory=dict)


def device_key(bound: Bound) -> str:
    """Provider, version, device and driver: measurements hold for one of each."""
    provider = bound.provider
    text = repr((provider.version, bound.device, provider.fingerprint(bound.device), provider.options))
    return f"{provider.name}-{_digest(text, 16)}"


def _digest(text: str, digits: int) -> str:
    import hashlib  # OpenSSL: 3 MB, which a load without measured times can do without

    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def signature(node: ir.Node, opset: int) -> str:
    """Operator, version, attributes, and the types and shapes of inputs: nodes alike in these cost the same."""
    attributes = {
        name: value
        for name, value in sorted(attribute_values(node).items())
        if not isinstance(value, ir.Graph)
    }
    digest = _digest(repr(attributes), 8) if attributes else ""
    inputs = ",".join(_typed(value) for value in node.inputs)
    return f"{node.domain}.{node.op_type}@{opset}#{digest}({inputs})"


def _typed(value: ir.Value | None) -> str:
    if value is None:
        return ""
    shape = "?" if value.shape is None else "x".join(map(str, value.shape))
    weight = "=" if constant_of(value) is not None else ""
    return f"{weight}{element_type(value)}[{shape}]"


def nbytes_of(value: ir.Value) -> int:
    """The size of a value; unknown dimensions are taken as 16."""
    name = element_type(value)
    if not name or name == "string" or value.shape is None:
        return UNKNOWN_SIZE
    return _elements(value) * numpy_dtype(name).itemsize


def _elements(value: ir.Value) -> int:
    if value.shape is None:
        return UNKNOWN_SIZE
    return int(np.prod([d if isinstance(d, int) else UNKNOWN_SIZE for d in value.shape], dtype=np.int64))


def estimate(node: ir.Node) -> float:
    """Time by a simple roofline: arithmetic and memory traffic at the pace of one ordinary core."""
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    traffic = sum(map(nbytes_of, values)) / BANDWIDTH
    operations = 0
    first = next((value for value in node.outputs if value is not None), None)
    if first is not None and len(node.inputs) > 1 and node.inputs[1] is not None:
        weight = node.inputs[1]
        shape = [d if isinstance(d, int) else UNKNOWN_SIZE for d in weight.shape or ()]
        if node.op_type.endswith(("MatMul", "Gemm")) and len(shape) >= 2:
            operations = 2 * _elements(first) * shape[-2]
        elif "Conv" in node.op_type and len(shape) > 2:
            operations = 2 * _elements(first) * int(np.prod(shape[1:]))
    return OVERHEAD + max(traffic, operations / FLOPS)


@dataclass(frozen=True)
class Costs:
    """The costs of one load.

    Attributes:
        tables: what was measured, by provider (index into the session's).
        opsets: of the model.
    """

    tables: Mapping[int, CostTable]
    opsets: Mapping[str, int]

    def node(self, rank: int, node: ir.Node, claim: Claim) -> float:
        """Seconds for a node on a provider that claims it: measured, else stated, else estimated."""
        table = self.tables.get(rank)
        if table is not None:
            opset = node.version or self.opsets.get(node.domain, 1)
            known = table.seconds.get(signature(node, opset))
            if known is not None:
                return known
        if claim.cost is not None:
            return claim.cost / len(claim.nodes)
        return estimate(node)

    def division_key(self, labels: Mapping[ir.Node, int]) -> str | None:
        """Identifies a division of a graph's nodes among devices; None if one of the devices was never measured."""
        if not set(labels.values()) <= set(self.tables):
            return None
        opsets = self.opsets
        text = repr(
            [
                (signature(node, node.version or opsets.get(node.domain, 1)), self.tables[rank].device)
                for node, rank in labels.items()
            ]
        )
        return _digest(text, 32)

    def measured(self, labels: Mapping[ir.Node, int]) -> float | None:
        """Seconds of a run of the whole graph under a division; None if it was not measured."""
        key = self.division_key(labels)
        if key is None:
            return None
        return next((t.divisions[key] for t in self.tables.values() if key in t.divisions), None)

    def to_device(self, rank: int, value: ir.Value) -> float:
        """Seconds for the copy of a value from the host."""
        table = self.tables.get(rank)
        return (table.to_device if table else Link()).seconds(nbytes_of(value))

    def to_host(self, rank: int, value: ir.Value) -> float:
        """Seconds for the copy of a value to the host."""
        table = self.tables.get(rank)
        return (table.to_host if table else Link()).seconds(nbytes_of(value))


class CostStore:
    """Tables in a folder, one file for each device. Safe under concurrent writers."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def load(self, bound: Bound) -> CostTable | None:
        """What was measured on this device; None if nothing was.

        Raises:
            ArtifactError: if the file is damaged.
        """
        key = device_key(bound)
        path = self.folder / f"{key}.costs.json"
        try:
            stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return CostTable(
                key,
                {str(name): float(value) for name, value in stored["seconds"].items()},
                Link(**stored["to_device"]),
                Link(**stored["to_host"]),
                {str(name): float(value) for name, value in stored.get("divisions", {}).items()},
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"the measured times of {bound.name!r} cannot be read: {error}",
                where=Where(file=str(path), provider=bound.name),
                remedy="delete the file and measure again: epkit tune MODEL",
            ) from error

    def save(self, table: CostTable) -> Path:
        """Add a table's times to those kept for its device."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{table.device}.costs.json"
        handle, name = tempfile.mkstemp(dir=self.folder)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(asdict(table), file, indent=1, sort_keys=True)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return path
