"""Operators of two or more tensors that map elements to elements."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ..case import Case, cases_for
from ..data import Array, floats, text, truths, whole

BY_NUMPY: dict[str, Callable[..., Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Pow": np.power,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
    "Equal": np.equal,
    "Greater": np.greater,
    "Less": np.less,
}


def from_axis_1(op: str, a: Array, b: Array) -> Array:
    """What the attribute ``axis=1`` of opsets 1 to 6 meant: B's only axis is A's second."""
    return BY_NUMPY[op](a, b[:, None])


def broadcast(op: str, a: Array, b: Array, limited: bool = False) -> Iterator[Case]:
    """Equal shapes; B spread over A by the attributes of opsets 1 to 6; both spread over each other since."""
    yield Case([a, b])  # shapes [2, 3, 4]
    if limited:
        along = {"broadcast": 1, "axis": 1}
        yield Case([a, b[1, :, 2]], along, expect=lambda a, b: [from_axis_1(op, a, b)])
        yield Case([a, b[0]], {"broadcast": 1})
        yield Case([a, b[0, 0, :1]], {"broadcast": 1})
    else:
        yield Case([a[:, :1], b[0]])
        yield Case([a[0, 0], b[:, :, :1]])
        yield Case([a, np.array(b[0, 0, 0])])


@cases_for("Add", "Sub", "Mul", "Div")
def arithmetic(op: str, version: int) -> Iterator[Case]:
    low = 0.5 if op == "Div" else -4.0
    yield from broadcast(
        op, floats(2, 3, 4, low=-4, high=4), floats(2, 3, 4, low=low, high=4, seed=1), version < 7
    )


@cases_for("Pow")
def power(op: str, version: int) -> Iterator[Case]:
    base, exponent = floats(2, 3, 4, low=0.3, high=3), floats(2, 3, 4, seed=1)
    yield from broadcast(op, base, exponent, version < 7)
    if version >= 12:
        yield Case([base, whole(3, 1, high=4, dtype=np.int32)])


@cases_for("And", "Or", "Xor")
def logical(op: str, version: int) -> Iterator[Case]:
    yield from broadcast(op, truths(2, 3, 4), truths(2, 3, 4, seed=1), version < 7)


@cases_for("Equal")
def equal(op: str, version: int) -> Iterator[Case]:
    a, b = whole(2, 3, 4, high=3), whole(2, 3, 4, high=3, seed=1)
    yield from broadcast(op, a, b, version < 7)
    if version >= 19:
        yield Case([text("a", "b", "c"), text("a", "c", "c")])


@cases_for("Greater", "Less", "GreaterOrEqual", "LessOrEqual")
def order(op: str, version: int) -> Iterator[Case]:
    a, b = whole(2, 3, 4, high=3).astype(np.float32), whole(2, 3, 4, high=3, seed=1).astype(np.float32)
    yield from broadcast(op, a, b, version < 7)


@cases_for("BitwiseAnd", "BitwiseOr", "BitwiseXor")
def bitwise(op: str, version: int) -> Iterator[Case]:
    yield from broadcast(
        op, whole(2, 3, 4, low=-9, dtype=np.int32), whole(2, 3, 4, low=-9, seed=1, dtype=np.int32), False
    )


@cases_for("BitShift")
def shift(op: str, version: int) -> Iterator[Case]:
    x, by = whole(2, 4, high=200, dtype=np.uint8), whole(4, high=8, dtype=np.uint8)
    for direction in ("LEFT", "RIGHT"):
        yield Case([x, by], {"direction": direction})
    if version >= 28:
        far, signed = np.array([-1, 3, 8, 127], np.int8), np.array([-128, -3, 5, 127], np.int8)
        for direction, result in (("RIGHT", [-1, -1, 0, 0]), ("LEFT", [0, -24, 0, 0])):
            yield Case(
                [signed, far],
                {"direction": direction},
                expect=lambda *_, result=result: [np.array(result, np.int8)],
                retype=False,
            )


@cases_for("Mod")
def modulo(op: str, version: int) -> Iterator[Case]:
    a, b = whole(2, 3, 4, low=-9, high=9), whole(2, 3, 4, low=1, high=5, seed=1)
    yield from broadcast(op, a, b)
    yield Case([a, -b])
    yield Case([a, b], {"fmod": 1})
    yield Case([floats(3, 4, low=-9, high=9), floats(4, low=1, high=3)], {"fmod": 1})
    if version >= 28:
        x, y = floats(3, 4, low=-9, high=9), floats(4, low=1, high=3)
        yield Case([x, y], expect=lambda x, y: [x - np.floor(x / y) * y])


@cases_for("Max", "Min", "Sum", "Mean")
def variadic(op: str, version: int) -> Iterator[Case]:
    a, b, c = (floats(2, 3, 4, seed=seed) for seed in range(3))
    yield Case([a])
    yield Case([a, b, c])
    if version >= 8:
        yield Case([a, b[0, :1], c[:, :, :1]])


@cases_for("Where")
def where(op: str, version: int) -> Iterator[Case]:
    yield Case([truths(2, 3, 4), floats(2, 3, 4), floats(2, 3, 4, seed=1)])
    yield Case([truths(3, 1), floats(2, 1, 4), floats(4, seed=1)])
    yield Case([truths(2), text("a", "b"), text("c", "d")])


@cases_for("PRelu")
def prelu(op: str, version: int) -> Iterator[Case]:
    """Before opset 7, one slope per channel (axis 1), or one for all."""
    x, slopes = floats(2, 3, 4), floats(3, seed=1)
    shape = (3,) if version < 7 else (3, 1)
    yield Case(
        [x, slopes.reshape(shape)], expect=lambda x, slope: [np.where(x < 0, x * slope.reshape(-1, 1), x)]
    )
    yield Case([x, slopes[:1]])


@cases_for("SwiGLU")
def swiglu(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(2, 3, 4), floats(2, 3, 4, seed=1)])
    yield Case([floats(2, 3), floats(2, 3, seed=1)], {"alpha": 1.7})
