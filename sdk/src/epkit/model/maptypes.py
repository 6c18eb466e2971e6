"""Map types (ai.onnx.ml: ZipMap, DictVectorizer, CastMap), which onnx_ir cannot read or write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import onnx
import onnx_ir as ir

from epkit.errors import InvalidModelError


@dataclass(frozen=True)
class MapType:
    """The type of a dictionary from scalars to values, in the place of an onnx_ir type.

    `dtype` is that of the innermost values, as for the sequence types of onnx_ir.
    """

    key: ir.DataType
    elem_type: Any
    denotation: str | None = None

    @property
    def dtype(self) -> ir.DataType:
        return self.elem_type.dtype  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"Map({self.key}, {self.elem_type})"


@contextmanager
def set_aside(model: onnx.ModelProto) -> Iterator[dict[str, Any]]:
    """Take map types out of the main graph of a proto for a while; yields the types by value name."""
    taken: list[tuple[onnx.ValueInfoProto, onnx.TypeProto]] = []
    graph = model.graph
    for info in (*graph.input, *graph.output, *graph.value_info):
        if _has_map(info.type):
            kept = onnx.TypeProto()
            kept.CopyFrom(info.type)
            taken.append((info, kept))
            info.ClearField("type")
    try:
        yield {info.name: from_proto(kept) for info, kept in taken}
    finally:
        for info, kept in taken:
            info.type.CopyFrom(kept)


def bring_back(values: Iterable[ir.Value], types: dict[str, Any]) -> None:
    """Give the values the types that were set aside."""
    if types:
        for value in values:
            if value.name in types:
                value.type = types[value.name]


def from_proto(proto: onnx.TypeProto) -> Any:
    """The onnx_ir type of a TypeProto, with MapType where there are maps."""
    kind = proto.WhichOneof("value")
    if kind == "map_type":
        key = onnx.TypeProto(tensor_type=onnx.TypeProto.Tensor(elem_type=proto.map_type.key_type))
        return MapType(from_proto(key).dtype, from_proto(proto.map_type.value_type))
    if kind == "sequence_type":
        return ir.SequenceType(from_proto(proto.sequence_type.elem_type))
    if kind == "optional_type":
        return ir.OptionalType(from_proto(proto.optional_type.elem_type))
    if kind not in ("tensor_type", "sparse_tensor_type") or not getattr(proto, kind).elem_type:
        raise InvalidModelError("A type lacks the type of its elements.", remedy="export the model anew")
    number = getattr(proto, kind).elem_type
    if number not in iter(ir.DataType):
        raise InvalidModelError(
            f"The element type {number} is unknown here.",
            remedy="a newer onnx package may know it: pip install -U onnx onnx-ir",
        )
    return (ir.TensorType if kind == "tensor_type" else ir.SparseTensorType)(ir.DataType(number))


def into_proto(kind: Any, proto: onnx.TypeProto) -> None:
    """Write an onnx_ir type or MapType into a TypeProto."""
    if type(kind) is ir.TensorType and kind.denotation is None:  # nearly always; the tests below are slow
        proto.tensor_type.elem_type = kind.dtype.value
    elif isinstance(kind, MapType):
        proto.map_type.key_type = kind.key.value
        into_proto(kind.elem_type, proto.map_type.value_type)
    elif isinstance(kind, ir.SequenceType):
        into_proto(kind.elem_type, proto.sequence_type.elem_type)
    elif isinstance(kind, ir.OptionalType):
        into_proto(kind.elem_type, proto.optional_type.elem_type)
    else:
        ir.serde.serialize_type_into(proto, kind)


def has_map(kind: Any) -> bool:
    """Whether a type is a map or contains one."""
    if isinstance(kind, (ir.SequenceType, ir.OptionalType)):
        return has_map(kind.elem_type)
    return isinstance(kind, MapType)


def _has_map(proto: onnx.TypeProto) -> bool:
    kind = proto.WhichOneof("value")
    if kind in ("sequence_type", "optional_type"):
        return _has_map(getattr(proto, kind).elem_type)
    return bool(kind == "map_type")
