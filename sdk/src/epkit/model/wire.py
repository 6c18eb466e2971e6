"""Cuts the weights out of a serialized ModelProto, so that only a small skeleton has to be parsed.

Protobuf wire format: a message is a run of fields, each a varint key (number << 3 | wire type) and a value;
wire types are 0 varint, 1 eight bytes, 2 length-prefixed, 5 four bytes
(https://protobuf.dev/programming-guides/encoding). Field numbers are those of onnx.proto. Only messages on
the way to a TensorProto, and only if larger than a page, are looked into; all others are copied whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from epkit.errors import NotOnnxError, UnsafeModelError

PAGE = 4096  # bytes; a smaller message is copied whole
SMALL = 1024  # bytes; fewer elements stay in the skeleton

Buffer = memoryview
Chunks = list[bytes | memoryview]

# message -> field number -> message on the way to a tensor
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
}
# fields of TensorProto that hold elements, and those of fixed width that can be a view
_DATA = {4: "float_data", 5: "int32_data", 6: "string_data", 7: "int64_data", 9: "raw_data"} | {
    10: "double_data",
    11: "uint64_data",
}
_VIEWABLE = {4, 9, 10}
_LISTS = {
    7,
    8,
    9,
}  # floats, ints, strings of AttributeProto: next to them are no tensors, and often a million entries
_SEGMENT = 3  # TensorProto.segment: no writer uses it, so it serves as the mark of a cut


@dataclass(frozen=True, slots=True)
class Cut:
    """Elements left in the buffer: `length` bytes at `start`, once the field `field` of a TensorProto."""

    start: int
    length: int
    field: str


def cut(buffer: Buffer, *, nesting: int) -> tuple[bytes, list[Cut]]:
    """Split a serialized model into its skeleton and the places of its large weights.

    In the skeleton a tensor whose elements were cut has segment.begin = its index in the list.

    Raises:
        NotOnnxError: the bytes are not a protobuf message, or end too early.
        UnsafeModelError: graphs nest deeper than `nesting`.
    """
    cuts: list[Cut] = []
    chunks, _ = _Scan(buffer, cuts, nesting).message("model", 0, len(buffer), 0)
    return b"".join(chunks), cuts


@dataclass(slots=True)
class _Scan:
    buffer: Buffer
    cuts: list[Cut]
    nesting: int

    def message(self, kind: str, start: int, end: int, depth: int) -> tuple[Chunks, int]:
        """The chunks of one message with its weights cut out, and their length in all."""
        if kind == "tensor":
            return self._tensor(start, end)
        if kind == "graph" and depth > self.nesting:
            raise UnsafeModelError(
                f"Graphs are nested more than {self.nesting} deep.",
                remedy="if you trust the model, read it with a larger limits=Limits(nesting=...)",
            )
        children = _CHILDREN[kind]
        chunks: Chunks = []
        done = start
        for number, wire, key, value, stop in self._fields(start, end):
            if kind == "attribute" and number in _LISTS:
                break
            child = children.get(number)
            if child is None or wire != 2 or stop - value <= PAGE:
                continue
            inner, length = self.message(child, value, stop, depth + (child == "graph"))
            if length != stop - value:
                chunks += [self.buffer[done:key], _varint(number << 3 | 2), _varint(length), *inner]
                done = stop
        chunks.append(self.buffer[done:end])
        return chunks, sum(map(len, chunks))

    def _tensor(self, start: int, end: int) -> tuple[Chunks, int]:
        data = [field for field in self._fields(start, end) if field[0] in _DATA]
        number, wire, key, value, stop = data[0] if len(data) == 1 else (0, 0, 0, 0, 0)
        if number in _VIEWABLE and wire == 2 and stop - value > SMALL:
            mark = b"\x08" + _varint(len(self.cuts))
            self.cuts.append(Cut(value, stop - value, _DATA[number]))
            segment = _varint(_SEGMENT << 3 | 2) + _varint(len(mark)) + mark
            chunks: Chunks = [self.buffer[start:key], segment, self.buffer[stop:end]]
        else:
            chunks = [self.buffer[start:end]]
        return chunks, sum(map(len, chunks))

    def _fields(self, pos: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
        """(number, wire type, start of key, start of value, end of value) of each field."""
        buffer = self.buffer
        while pos < end:
            key = pos
            tag, pos = _read_varint(buffer, pos, end)
            wire = tag & 7
            if wire == 2:
                length, pos = _read_varint(buffer, pos, end)
                stop = pos + length
            elif wire == 0:
                _, stop = _read_varint(buffer, pos, end)
            elif wire == 5:
                stop = pos + 4
            elif wire == 1:
                stop = pos + 8
            else:
                raise NotOnnxError(f"Not a protobuf message: wire type {wire} at byte {key:,}.")
            if stop > end:
                raise NotOnnxError(
                    f"The model ends too early: a field at byte {key:,} goes on to byte {stop:,}, "
                    f"but its message ends at {end:,}."
                )
            yield tag >> 3, wire, key, pos, stop
            pos = stop


def _read_varint(buffer: Buffer, pos: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while pos < end and shift < 70:
        byte = buffer[pos]
        pos += 1
        if byte < 0x80:
            return value | byte << shift, pos
        value |= (byte & 0x7F) << shift
        shift += 7
    raise NotOnnxError(f"The model ends too early, or is no protobuf message: broken number at byte {pos:,}.")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
