"""Operators that take, put, order or make elements by index."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..case import Case, cases_for
from ..data import distinct, floats, ints, whole


@cases_for("Gather")
def gather(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(4, 3, 2), whole(2, 2, high=4)])
    yield Case([floats(4, 3, 2), np.array(1)], {"axis": 1})
    if version >= 11:
        yield Case([floats(4, 3, 2), ints(-1, 0, -3)], {"axis": -2})


@cases_for("GatherElements")
def gather_elements(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(4, 3), whole(2, 3, high=4)])
    yield Case([floats(4, 3), whole(4, 2, low=-3, high=3)], {"axis": -1})


@cases_for("GatherND")
def gather_nd(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(2, 3, 4), whole(5, 2, high=2)])
    yield Case([floats(2, 3, 4), whole(5, 3, low=-2, high=2)])
    if version >= 12:
        yield Case([floats(2, 3, 4), whole(2, 5, 1, high=3)], {"batch_dims": 1})


REDUCTIONS = {16: ("add", "mul"), 18: ("add", "mul", "max", "min")}


@cases_for("Scatter", "ScatterElements")
def scatter(op: str, version: int) -> Iterator[Case]:
    data, updates = floats(4, 3), floats(2, 3, seed=1)
    yield Case([data, np.array([[0, 1, 3], [2, 0, 1]]), updates])
    yield Case([data, np.array([[1], [0], [2], [2]]), updates[:, :2].reshape(4, 1)], {"axis": 1})
    if op == "ScatterElements":
        yield Case([data, np.array([[-1, 0, -2]]), updates[:1]], {"axis": -2})
    for reduction in REDUCTIONS.get(version, ()):
        yield Case([data, np.array([[0, 1, 3], [0, 0, 3]]), updates], {"reduction": reduction})


@cases_for("ScatterND")
def scatter_nd(op: str, version: int) -> Iterator[Case]:
    data = floats(4, 3, 2)
    yield Case([data, np.array([[1], [3]]), floats(2, 3, 2, seed=1)])
    yield Case([data, np.array([[1, 2], [-1, 0], [0, -1]]), floats(3, 2, seed=1)])
    for reduction in REDUCTIONS.get(version, ()):
        yield Case([data, np.array([[1], [1]]), floats(2, 3, 2, seed=1)], {"reduction": reduction})


@cases_for("TensorScatter")
def tensor_scatter(op: str, version: int) -> Iterator[Case]:
    cache, update = floats(2, 3, 5, 4), floats(2, 3, 2, 4, seed=1)
    yield Case([cache, update])
    yield Case([cache, update, ints(1, 3)])
    yield Case([cache, update, ints(1, 4)], {"mode": "circular"})
    yield Case([floats(2, 5, 4), floats(2, 2, 4, seed=1), ints(0, 2)], {"axis": 1})


@cases_for("OneHot")
def one_hot(op: str, version: int) -> Iterator[Case]:
    values = np.array([0.5, 3.0], np.float32)
    yield Case([ints(0, 2, 4, 9), np.array(5), values])
    yield Case([whole(2, 3, high=5), ints(5), values], {"axis": 0})
    if version >= 11:
        yield Case([ints(-1, 2, -5), np.array(5), values], {"axis": -2})


@cases_for("TopK")
def top_k(op: str, version: int) -> Iterator[Case]:
    x = distinct(3, 5)
    ties = np.array([[1, 2, 2, 0, 2], [3, 3, 1, 1, 0]], np.float32)
    for data, axis in ((x, -1), (x, 0), (ties, 1)):
        yield (
            Case([data], {"axis": axis, "k": 2}, 2)
            if version < 10
            else Case([data, ints(2)], {"axis": axis}, 2)
        )
    if version >= 11:
        yield Case([x, ints(3)], {"largest": 0}, outputs=2)
        yield Case([ties, ints(2)], {"largest": 0}, outputs=2)


@cases_for("ArgMax", "ArgMin")
def arg(op: str, version: int) -> Iterator[Case]:
    ties = whole(3, 4, high=3).astype(np.float32)
    yield Case([ties])
    yield Case([ties], {"axis": 1, "keepdims": 0})
    if version >= 11:
        yield Case([ties], {"axis": -1})
    if version >= 12:
        yield Case([ties], {"axis": 1, "select_last_index": 1})


@cases_for("CumSum", "CumProd")
def cumulative(op: str, version: int) -> Iterator[Case]:
    x = floats(3, 4)
    yield Case([x, np.array(0)])
    yield Case([x, np.array(1, np.int32)], {"exclusive": 1})
    yield Case([x, np.array(-1)], {"reverse": 1})
    yield Case([x, np.array(1)], {"exclusive": 1, "reverse": 1})


@cases_for("EyeLike")
def eye(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(3, 4)])
    yield Case([floats(3, 4)], {"k": 1, "dtype": 7})
    yield Case([floats(4, 3)], {"k": -2})


@cases_for("Range")
def number_range(op: str, version: int) -> Iterator[Case]:
    for numbers in ((1, 9, 3), (10, 4, -2), (0, 0, 1)):
        yield Case([np.array(n, np.float32) for n in numbers])
        yield Case([np.array(n) for n in numbers])
