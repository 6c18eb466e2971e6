"""Writes a model to a file, all or nothing: into a temporary file first, which then takes the name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import onnx
import onnx.printer
import onnx.serialization
import onnx_ir as ir

from epkit.dtypes import NAME, numpy_dtype
from epkit.errors import EpkitError, InvalidModelError, ModelError, Where
from epkit.model import maptypes
from epkit.model.schemas import signature
from epkit.model.source import text_format
from epkit.model.walk import all_graphs

EXTERNAL_ABOVE = 1_500_000_000  # bytes of weights; protobuf ends at 2 GB
SMALL = 1024  # bytes; smaller weights stay in the model file
ALIGNMENT = 64  # bytes; lets a map of the data file serve vector loads


def write(
    model: ir.Model,
    path: str | os.PathLike[str],
    *,
    external_data: bool | None = None,
    mixed_versions: bool = False,
) -> None:
    """Write a model; the suffix may choose a text format (.onnxtxt, .textproto, .json).

    External data go to a second file next to it, path + ".data", which is put in place first.

    Args:
        model: the graph; not changed.
        path: the file to write or replace.
        external_data: True or False to choose; None for external data above 1.5 GB of weights.
        mixed_versions: keep the version of each node, where it has its own, for :func:`restore_versions`; such a file
            is for epkit alone.

    Raises:
        InvalidModelError: nodes were written against other opset versions than the model imports.
        ModelError: the file cannot be written.
    """
    target = Path(path)
    if mixed_versions:
        _note_versions(model)
    else:
        _check_versions(model)
    weights = list(_weights(model))
    if external_data is None:
        external_data = (
            sum(value.const_value.nbytes for value in weights if value.const_value) > EXTERNAL_ABOVE
        )
    try:
        if external_data:
            _write_external(model, target, weights)
        else:
            _replace(target, lambda file: file.write(_serialize(to_proto(model), target)))
    except EpkitError as error:
        raise error.at(stage="write", file=str(target)) from error.__cause__
    except (OSError, ValueError, MemoryError) as error:
        raise ModelError(
            f"The model cannot be written: {error}.",
            where=Where(stage="write", file=str(target)),
            remedy="check the folder, its permissions and the space left",
        ) from error


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """The whole model as protobuf, weights included, map types too."""
    inputs_outputs = (*model.graph.inputs, *model.graph.outputs)
    kept = {value: value.type for value in inputs_outputs if maptypes.has_map(value.type)}
    for value in kept:
        value.type = None
    try:
        proto = ir.serde.serialize_model(model)
    finally:
        for value, kind in kept.items():
            value.type = kind
    types = {value.name: kind for value, kind in kept.items()}
    for info in (*proto.graph.input, *proto.graph.output):
        if info.name in types:
            maptypes.into_proto(types[info.name], info.type)
    return proto


def _weights(model: ir.Model) -> Iterator[ir.Value]:
    for graph in all_graphs(model.graph):
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype != ir.DataType.STRING and tensor.nbytes > SMALL:
                yield value


def places_of(model: ir.Model) -> dict[str, tuple[str, list[int], int]]:
    """Of weights of the main graph that lie in the data file as arrays do: element type, shape and offset by name."""
    places: dict[str, tuple[str, list[int], int]] = {}
    end = 0
    for value in _weights(model):
        tensor = value.const_value
        assert tensor is not None
        offset = -(-end // ALIGNMENT) * ALIGNMENT
        end = offset + tensor.nbytes
        kind = NAME.get(int(tensor.dtype), "")
        if value.graph is model.graph and kind and tensor.nbytes == tensor.size * numpy_dtype(kind).itemsize:
            places[value.name or ""] = kind, list(tensor.shape.numpy()), offset
    return places


def _write_external(model: ir.Model, target: Path, weights: list[ir.Value]) -> None:
    data = target.with_name(target.name + ".data")
    tensors = {value: value.const_value for value in weights}

    def stream(file: IO[bytes]) -> None:
        for value, tensor in tensors.items():
            assert tensor is not None
            offset = -(-file.tell() // ALIGNMENT) * ALIGNMENT
            file.write(bytes(offset - file.tell()))
            file.write(memoryview(tensor.tobytes()))
            value.const_value = ir.ExternalTensor(
                data.name,
                offset,
                tensor.nbytes,
                tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=value.name or "",
            )

    try:
        _replace(data, stream)
        proto = to_proto(model)
    finally:
        for value, tensor in tensors.items():
            value.const_value = tensor
    _replace(target, lambda file: file.write(_serialize(proto, target)))


def _serialize(proto: onnx.ModelProto, target: Path) -> bytes:
    kind = text_format(target) or "protobuf"
    if kind == "onnxtxt":
        return onnx.printer.to_text(proto).encode()
    data: bytes = onnx.serialization.registry.get(kind).serialize_proto(proto)
    return data


def _replace(target: Path, fill: Callable[[IO[bytes]], object]) -> None:
    with _temporary(target) as (file, temporary):
        fill(file)
        file.flush()
        os.fsync(file.fileno())
        file.close()
        os.replace(temporary, target)


@contextmanager
def _temporary(target: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """A new file in the target's folder, gone afterwards unless it was renamed."""
    temporary = target.with_name(f".{target.name}.{os.urandom(4).hex()}.tmp")
    file = open(temporary, "xb")  # noqa: SIM115  closed below, before renaming
    try:
        yield file, temporary
    finally:
        file.close()
        with suppress(FileNotFoundError):
            temporary.unlink()


VERSION = "epkit.version"
"""The metadata of a node that holds its own opset version."""


def _note_versions(model: ir.Model) -> None:
    for node in _nodes(model):
        if node.version is not None:
            node.metadata_props[VERSION] = str(node.version)


def restore_versions(model: ir.Model) -> None:
    """Give the nodes the versions that they had when the model was written with ``mixed_versions``."""
    for node in _nodes(model):
        if VERSION in node.metadata_props:
            node.version = int(node.metadata_props.pop(VERSION))


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    owners: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    return (node for owner in owners for node in owner.all_nodes())


def _check_versions(model: ir.Model) -> None:
    """A file has one version for each domain: refuse nodes that another version gives another meaning."""
    imports = model.opset_imports
    for node in model.graph.all_nodes():
        wanted, given = node.version, imports.get(node.domain)
        if wanted is None or wanted == given:
            continue
        known = signature(node.domain, node.op_type, wanted), signature(node.domain, node.op_type, given or 0)
        if known[0] is None or known[1] is None or known[0].since != known[1].since:
            raise InvalidModelError(
                f"Node {node.name!r} ({node.op_type}) is written against version {wanted} of "
                f"{node.domain or 'ai.onnx'!r}, the model imports {given}: a file cannot say both.",
                where=Where(stage="write", node=node.name or ""),
                remedy="write the model before its functions are inlined",
            )
