"""Sequences and optionals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto, TypeProto, helper

from ..case import Case, cases_for, in_type_for
from ..data import floats, ints, text
from ..retype import as_element

FLOAT = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
ITEMS = helper.make_sequence_type_proto(FLOAT)
THREE = [floats(2, 3), floats(1, 3, seed=1), floats(4, 3, seed=2)]


@cases_for("SequenceConstruct")
def construct(op: str, version: int) -> Iterator[Case]:
    yield Case(THREE)
    yield Case([ints(1, 2)])


@cases_for("SequenceEmpty")
def empty(op: str, version: int) -> Iterator[Case]:
    yield Case()
    yield Case(attributes={"dtype": TensorProto.INT64})


@cases_for("SequenceAt")
def at(op: str, version: int) -> Iterator[Case]:
    for position in (0, 2, -1):
        yield Case([THREE, np.array(position)])


@cases_for("SequenceErase")
def erase(op: str, version: int) -> Iterator[Case]:
    yield Case([THREE])
    yield Case([THREE, np.array(-3)])


@cases_for("SequenceInsert")
def insert(op: str, version: int) -> Iterator[Case]:
    yield Case([THREE, floats(1, 2)])
    yield Case([THREE, floats(1, 2), np.array(1, np.int32)])
    yield Case([[], floats(1, 2)], types={0: ITEMS})


@cases_for("SequenceLength")
def length(op: str, version: int) -> Iterator[Case]:
    yield Case([THREE])
    yield Case([[]], types={0: ITEMS})


@cases_for("ConcatFromSequence")
def concat(op: str, version: int) -> Iterator[Case]:
    yield Case([THREE], {"axis": 0})
    yield Case([[floats(2, 3), floats(2, 3, seed=1)]], {"axis": -1, "new_axis": 1})


@cases_for("SplitToSequence")
def split(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(4, 3)])
    yield Case([floats(4, 3)], {"axis": 1, "keepdims": 0})
    yield Case([floats(5, 3), np.array(2)])
    yield Case([floats(5, 3), ints(1, 4)])


@cases_for("SequenceMap")
def each(op: str, version: int) -> Iterator[Case]:
    """Both a sequence and a tensor go in; the body also reads a value of the graph around it."""
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "abcd"]
    nodes = [helper.make_node("Mul", ["a", "b"], ["c"]), helper.make_node("Add", ["c", "outer"], ["d"])]
    body = helper.make_graph(nodes, "body", info[:2], info[2:])
    other, outer = floats(3), np.array(7, np.float32)
    yield Case(
        [THREE, other],
        {"body": body},
        outputs=2,
        captured={"outer": outer},
        expect=lambda items, by: [[x * by for x in items], [x * by + outer for x in items]],
        retype=False,
    )


@cases_for("Optional")
def optional(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(2, 3)], expect=lambda x: [x])
    yield Case([THREE], expect=lambda x: [x])
    yield Case(attributes={"type": FLOAT}, expect=lambda: [None])
    yield Case([text("a")], expect=lambda x: [x])


def maybe(inner: TypeProto) -> TypeProto:
    """optional(...) of a type."""
    return helper.make_optional_type_proto(inner)


@cases_for("OptionalGetElement")
def get_element(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(2, 3)], types={0: maybe(FLOAT)}, expect=lambda x: [x])
    yield Case([THREE], types={0: maybe(ITEMS)}, expect=lambda x: [x])
    if version >= 18:
        yield Case([floats(2, 3)])
        yield Case([THREE])


@cases_for("OptionalHasElement")
def has_element(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(2, 3)], types={0: maybe(FLOAT)}, expect=lambda x: [np.array(True)])
    yield Case([None], types={0: maybe(FLOAT)}, expect=lambda: [np.array(False)])
    yield Case([None], types={0: maybe(ITEMS)}, expect=lambda: [np.array(False)])
    if version >= 18:
        yield Case([floats(2, 3)])
        yield Case([None], expect=lambda: [np.array(False)])
        yield Case(expect=lambda: [np.array(False)])


@in_type_for("ConcatFromSequence", "SequenceAt")
def in_type(op: str, version: int, variable: str, element: str) -> Case | None:
    """T follows from the items."""
    items = [as_element(x, element) for x in THREE]
    if op == "SequenceAt":
        return Case([items, np.array(1)], expect=lambda *_: [items[1]]) if variable != "I" else None
    return Case([items], {"axis": 0}, expect=lambda _: [np.concatenate(items)])
