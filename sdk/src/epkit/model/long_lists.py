"""Attributes of tree ensembles, lists of a million entries: as arrays, not as a Python object for each entry.

onnx_ir makes tuples of all lists, which here takes most of the time of loading. So while onnx_ir reads the proto they
are hidden from it, and given to the nodes afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import onnx
import onnx_ir as ir

LONG = 1024
"""Entries of a list that is worth it."""

MOST_WORDS, SAMPLE = 16, 4096
"""Different strings of a list that is kept as numbers, and how many entries are looked at to find them."""

INTS, FLOATS, STRINGS = onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS, onnx.AttributeProto.STRINGS


@dataclass(frozen=True, eq=False)
class LongList(Sequence[Any]):
    """A list as an array: of its int64 or float32 entries or, with ``words``, of each string's place among these."""

    array: np.ndarray[Any, Any]
    words: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.array)

    def __iter__(self) -> Iterator[Any]:
        entries = self.array.tolist()
        return map(self.words.__getitem__, entries) if self.words else iter(entries)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> LongList: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return LongList(self.array[index], self.words)
        entry = self.array[index].item()
        return self.words[entry] if self.words else entry

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = np.array(self.words, object)[self.array] if self.words else self.array
        return np.array(array, dtype, copy=copy)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))


class LongAttr(ir.Attr):
    """An attribute of a long list."""

    __slots__ = ("_list",)

    def __init__(self, name: str, kind: ir.AttributeType, entries: LongList, doc_string: str | None) -> None:
        super().__init__(name, kind, None, doc_string=doc_string)
        self._list = entries

    @property
    def value(self) -> LongList:
        return self._list

    def shortened(self) -> ir.Attr:
        """The attribute with the first entry only."""
        return ir.Attr(self.name, self.type, self._list[:1])


@contextmanager
def set_aside(model: onnx.ModelProto) -> Iterator[list[tuple[int, LongAttr]]]:
    """Hide the long lists in the main graph of a proto for a while; yields them with the places of their nodes."""
    hidden: list[tuple[onnx.AttributeProto, Any]] = []
    found: list[tuple[int, LongAttr]] = []
    has_trees = any(entry.domain == "ai.onnx.ml" for entry in model.opset_import)
    for place, node in enumerate(model.graph.node if has_trees else ()):
        for attribute in node.attribute if node.op_type.startswith("TreeEnsemble") else ():
            entries = _long_list(attribute)
            if entries is None:
                continue
            kind, text = ir.AttributeType(attribute.type), attribute.doc_string or None
            found.append((place, LongAttr(attribute.name, kind, entries, text)))
            hidden.append((attribute, attribute.type))
            attribute.type = onnx.AttributeProto.INT  # of which the field "i" is read, and no list
    try:
        yield found
    finally:
        for attribute, kind in hidden:
            attribute.type = kind


def bring_back(graph: ir.Graph, lists: Sequence[tuple[int, LongAttr]]) -> None:
    """Give the nodes the lists that were set aside."""
    if lists:
        nodes = list(graph)
        for place, attribute in lists:
            nodes[place].attributes[attribute.name] = attribute


def _long_list(attribute: onnx.AttributeProto) -> LongList | None:
    if attribute.ref_attr_name:
        return None
    array: np.ndarray[Any, Any] | None = None
    words: tuple[str, ...] = ()
    if attribute.type == INTS and len(attribute.ints) > LONG:
        array = np.array(attribute.ints, np.int64)
    elif attribute.type == FLOATS and len(attribute.floats) > LONG:
        array = np.array(attribute.floats, np.float32)
    elif attribute.type == STRINGS and len(attribute.strings) > LONG:
        array, words = _coded(attribute)
    if array is None:
        return None
    array.flags.writeable = False
    return LongList(array, words)


def _coded(attribute: onnx.AttributeProto) -> tuple[np.ndarray[Any, Any] | None, tuple[str, ...]]:
    """Each string's place among the different ones, found on the wire: there a list is a run of equal records.

    No record begins as another does and goes on (their lengths come first), so if the run is cut into as many known
    records as it has, these are its own.
    """
    count = len(attribute.strings)
    sample = range(0, count, max(1, count // SAMPLE))
    words = sorted({attribute.strings[place] for place in sample}, key=lambda word: (-len(word), word))
    if len(words) > MOST_WORDS or not all(word.isascii() and len(word) < 0x80 for word in words):
        return None, ()
    head = onnx.AttributeProto(name=attribute.name).SerializeToString()
    tail = onnx.AttributeProto(type=STRINGS).SerializeToString()
    run = attribute.SerializeToString()
    if not run.startswith(head) or not run.endswith(tail):
        return None, ()
    run = run[len(head) : -len(tail)]
    for code, word in enumerate(words):
        record = onnx.AttributeProto(strings=[word]).SerializeToString()
        run = run.replace(record, bytes([code | 0x80]))  # a byte that no record has
    codes = np.frombuffer(run, np.uint8)
    if len(codes) != count or (codes < 0x80).any():
        return None, ()
    return codes & 0x7F, tuple(word.decode("ascii") for word in words)
