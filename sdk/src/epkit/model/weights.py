"""Finds, checks and places the elements of every tensor of a skeleton.

After `resolve`, each tensor of the skeleton either holds its few elements itself or has segment.begin = the
index of a Payload; `attach` then puts ViewTensors into the onnx_ir model made from the skeleton.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from epkit.errors import ExternalDataError, InvalidModelError, ModelError, NotOnnxError, Where
from epkit.model.external import ExternalFiles
from epkit.model.limits import Limits
from epkit.model.tensor import Source, ViewTensor
from epkit.model.walk import graphs_with_nodes
from epkit.model.wire import SMALL, Cut

# which field may hold the elements of which type (onnx.proto, TensorProto)
_FIELD_TYPES: dict[str, frozenset[str]] = {
    "float_data": frozenset({"FLOAT", "COMPLEX64"}),
    "double_data": frozenset({"DOUBLE", "COMPLEX128"}),
    "int64_data": frozenset({"INT64"}),
    "uint64_data": frozenset({"UINT32", "UINT64"}),
    "string_data": frozenset({"STRING"}),
}
TENSOR, TENSORS = ir.AttributeType.TENSOR, ir.AttributeType.TENSORS
_WHOLE_BYTES = frozenset(
    kind.value
    for kind in ir.DataType
    if kind not in (ir.DataType.UNDEFINED, ir.DataType.STRING) and kind.bitwidth >= 8
)
_NOT_INT32_DATA = frozenset().union(*_FIELD_TYPES.values()) | {"UNDEFINED"}


@dataclass(frozen=True, slots=True)
class Payload:
    """Elements outside the skeleton: `length` bytes at `offset` of `buffer`."""

    buffer: Source
    offset: int
    length: int


@dataclass
class Weights:
    """What `resolve` needs, and the payloads that it finds."""

    buffer: Source
    cuts: list[Cut]
    files: ExternalFiles
    limits: Limits

    def __post_init__(self) -> None:
        self.payloads: list[Payload] = []
        self._used: set[int] = set()
        self._total = 0

    def resolve(self, model: onnx.ModelProto) -> list[Payload]:
        """Check every tensor of the model; gather the elements that lie outside it.

        Raises:
            InvalidModelError: dims, type and number of elements do not fit together.
            UnsafeModelError: a limit is exceeded, or external data are refused.
            ExternalDataError: external data are missing or too short.
        """
        for node, tensor in tensors(model):
            try:
                self._tensor(tensor)
            except ModelError as error:
                error.at(node=node, value=tensor.name)
                raise
        if len(self._used) != len(self.cuts):
            raise NotOnnxError("The model is damaged: a weight appears twice in one place of the file.")
        return self.payloads

    def _tensor(self, tensor: onnx.TensorProto) -> None:
        dtype = _dtype(tensor.data_type)
        size = self._size(tensor, dtype)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            payload = self._external(tensor, size)
            tensor.ClearField("data_location")  # else onnx_ir would open the file itself, by its own rules
            tensor.ClearField("external_data")
            if size <= SMALL:  # it may be a shape, which inference needs to see
                tensor.raw_data = bytes(payload.buffer[payload.offset : payload.offset + size])
                _check_inline(tensor, dtype, size)
                return
        elif tensor.HasField("segment"):
            payload = self._cut(tensor, dtype, size)
        else:
            _check_inline(tensor, dtype, size)
            return
        tensor.ClearField("segment")
        tensor.segment.begin = len(self.payloads)
        self.payloads.append(payload)

    def _size(self, tensor: onnx.TensorProto, dtype: ir.DataType) -> int:
        """Bytes that the elements take packed, without the size of strings; checked against the limits."""
        dims = tensor.dims
        self.limits.refuse_above("rank", len(dims), f"Dimensions of tensor {tensor.name!r}")
        if any(dim < 0 for dim in dims):
            raise InvalidModelError(
                f"The tensor has a negative dimension: {list(dims)}.", remedy="export the model anew"
            )
        bits = 8 if dtype == ir.DataType.STRING else dtype.bitwidth
        count = math.prod(dims)
        # an empty tensor may still have dims beyond what an array can have
        unpacked = math.prod(max(dim, 1) for dim in dims) * max(bits, 8) // 8
        self._total += unpacked
        self.limits.refuse_above("tensor_bytes", unpacked, f"Bytes of tensor {tensor.name!r}")
        self.limits.refuse_above("total_bytes", self._total, "Bytes of all weights")
        return int(-(-count * bits // 8))

    def _cut(self, tensor: onnx.TensorProto, dtype: ir.DataType, size: int) -> Payload:
        index = tensor.segment.begin
        if not 0 <= index < len(self.cuts) or index in self._used:
            raise InvalidModelError(
                "The tensor uses 'segment', which ONNX reserves.", remedy="save the model anew, in one piece"
            )
        self._used.add(index)
        part = self.cuts[index]
        _check_field(part.field, dtype)
        if part.length != size:
            raise _wrong_size(tensor, dtype, part.length, size)
        return Payload(self.buffer, part.start, part.length)

    def _external(self, tensor: onnx.TensorProto, size: int) -> Payload:
        info = {entry.key: entry.value for entry in tensor.external_data}
        location = info.get("location", "")
        mapping = self.files.open(location)
        offset, length = _number(info, "offset", 0), _number(info, "length", size)
        where = Where(file=location)
        if length != size:
            raise ExternalDataError(
                f"External data of {length:,} bytes are declared for a tensor that needs {size:,}: "
                f"dims {list(tensor.dims)}.",
                where=where,
                remedy="export the model anew, with its data",
            )
        if offset + length > len(mapping):
            raise ExternalDataError(
                f"External data end too early: bytes {offset:,} to {offset + length:,} are needed, "
                f"the file has {len(mapping):,}.",
                where=where,
                remedy="download or copy the data file again; it may be truncated, or of another model",
            )
        return Payload(mapping, offset, length)


def tensors(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Each tensor of a model, all graphs and functions, with the name of the node that holds it."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for attribute in function.attribute_proto:
            yield from _attribute_tensors(function.name, attribute)
        for node in function.node:
            yield from _node_tensors(node)


def attach(model: ir.Model, payloads: list[Payload]) -> None:
    """Replace the tensors of a freshly deserialized model by views of their bytes, wherever these lie."""
    owners = [model.graph, *(function.graph for function in model.functions.values())]
    for graph, nodes in (each for owner in owners for each in graphs_with_nodes(owner)):
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = _view(value.const_value, payloads)
        for node in nodes:
            attributes = node.attributes
            if attributes.data:
                _attach_attributes(attributes, payloads)
    for function in model.functions.values():
        _attach_attributes(function.attributes, payloads)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in graph.initializer:
        yield "", tensor
    for node in graph.node:
        if node.attribute:
            yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for attribute in node.attribute:
        yield from _attribute_tensors(node.name or node.op_type, attribute)


def _attribute_tensors(owner: str, attribute: onnx.AttributeProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    if attribute.HasField("t"):
        yield owner, attribute.t
    for tensor in attribute.tensors:
        yield owner, tensor
    if attribute.HasField("g"):
        yield from _graph_tensors(attribute.g)
    for graph in attribute.graphs:
        yield from _graph_tensors(graph)


def _attach_attributes(attributes: MutableMapping[str, ir.Attr], payloads: list[Payload]) -> None:
    held = [(n, a) for n, a in attributes.items() if a.type in (TENSOR, TENSORS) and not a.is_ref()]
    for name, attribute in held:
        if attribute.type is TENSOR:
            view = _view(attribute.value, payloads)
            if view is not attribute.value:
                attributes[name] = ir.AttrTensor(name, view, doc_string=attribute.doc_string)
        else:
            views = [_view(tensor, payloads) for tensor in attribute.value]
            attributes[name] = ir.AttrTensors(name, views, doc_string=attribute.doc_string)


def _view(tensor: ir.TensorProtocol, payloads: list[Payload]) -> ir.TensorProtocol:
    proto = tensor.raw if isinstance(tensor, ir.serde.TensorProtoTensor) else None
    if proto is None:
        return tensor
    if proto.HasField("segment"):
        payload = payloads[proto.segment.begin]
    elif proto.data_type not in _WHOLE_BYTES:
        return tensor
    elif proto.HasField("raw_data"):
        payload = Payload(proto.raw_data, 0, len(proto.raw_data))
    else:  # in a list of numbers: read once, not at each look
        array = np.ascontiguousarray(tensor.numpy())
        payload = Payload(array.reshape(-1).view(np.uint8).data, 0, array.nbytes)
    return ViewTensor(
        payload.buffer,
        payload.offset,
        payload.length,
        ir.DataType(proto.data_type),
        ir.Shape(proto.dims, frozen=True),
        name=proto.name,
        doc_string=proto.doc_string or None,
        metadata_props={entry.key: entry.value for entry in proto.metadata_props} or None,
    )


def _check_inline(tensor: onnx.TensorProto, dtype: ir.DataType, size: int) -> None:
    """Elements in the skeleton itself: in a field that fits the type, and as many as dims say."""
    held = [(name, getattr(tensor, name)) for name in (*_FIELD_TYPES, "int32_data")]
    held = [(name, data) for name, data in held if len(data)]
    if tensor.HasField("raw_data"):
        if dtype == ir.DataType.STRING:
            raise InvalidModelError("Strings cannot be raw_data.", remedy="export the model anew")
        if held or len(tensor.raw_data) != size:
            raise _wrong_size(tensor, dtype, len(tensor.raw_data), size)
        return
    if len(held) > 1:
        raise InvalidModelError(
            f"The tensor has elements in two fields: {held[0][0]} and {held[1][0]}.",
            remedy="export the model anew",
        )
    for name, data in held:
        _check_field(name, dtype)
        expected = _stored(dtype, math.prod(tensor.dims))
        if len(data) != expected:
            raise _wrong_size(tensor, dtype, len(data), expected, "elements")
    if not held and math.prod(tensor.dims):
        raise _wrong_size(tensor, dtype, 0, size)


def _stored(dtype: ir.DataType, count: int) -> int:
    """Entries of a typed field for `count` elements: complex takes two, narrow types share one."""
    if dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128):
        return 2 * count
    narrow = dtype != ir.DataType.STRING and dtype.bitwidth in (2, 4)
    return -(-count * dtype.bitwidth // 8) if narrow else count


def _check_field(name: str, dtype: ir.DataType) -> None:
    allowed = (
        dtype.name not in _NOT_INT32_DATA
        if name == "int32_data"
        else name == "raw_data" or dtype.name in _FIELD_TYPES[name]
    )
    if not allowed or (name == "raw_data" and dtype == ir.DataType.STRING):
        raise InvalidModelError(
            f"Elements of type {dtype.name} cannot be in {name}.", remedy="export the model anew"
        )


def _dtype(number: int) -> ir.DataType:
    try:
        dtype = ir.DataType(number)
    except ValueError:
        dtype = ir.DataType.UNDEFINED
    if dtype == ir.DataType.UNDEFINED:
        raise InvalidModelError(
            f"The tensor has the element type {number}, which is unknown here.",
            remedy="a newer onnx package may know it: pip install -U onnx onnx-ir",
        )
    return dtype


def _number(info: dict[str, str], key: str, default: int) -> int:
    text = info.get(key, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ExternalDataError(
            f"The external data have the {key} {text!r}, which is no number.", remedy="export the model anew"
        )
    return int(text)


def _wrong_size(
    tensor: onnx.TensorProto, dtype: ir.DataType, found: int, needed: int, unit: str = "bytes"
) -> InvalidModelError:
    return InvalidModelError(
        f"The tensor has {found:,} {unit}, but {list(tensor.dims)} of {dtype.name} needs {needed:,}.",
        remedy="the file may be damaged: export or download it again",
    )
